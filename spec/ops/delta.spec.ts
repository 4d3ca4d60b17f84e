// Delta layers: rows together, one by one or split anywhere give the same bits, in the outputs and in the state; a batch of sequences through
// delta and attention layers equals each by itself; the fused layer equals its parts; a copied state is not changed by later calls.

import { type CachedLayer, decoderLayer, decoderLayers } from '../../src/ops/decoder_layer';
import { allocState, copyState, deltaRule, deltaWidth } from '../../src/ops/delta';
import { linear } from '../../src/ops/linear';
import { rmsNorm } from '../../src/ops/norm';
import { ropeTable } from '../../src/ops/rope';
import { float32, int32, noFloat32, noInt32 } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import { keeper } from '../../testing/ops/cases/case';
import { noise } from '../../testing/ops/cases/data';
import {
  type DecoderLayerSizes,
  decoderLayerData,
  decoderLayerWeights,
  SMALL_LAYER,
  weightTensors,
} from '../../testing/ops/cases/decoder_layer';
import { deltaRecord } from '../../testing/ops/cases/delta';
import {
  type DeltaLayerSizes,
  deltaLayerData,
  deltaLayerWeights,
  SMALL_DELTA,
} from '../../testing/ops/cases/delta_layer';
import { filledCache } from '../../testing/ops/cases/kv_cache';
import { inverseFrequencies } from '../../testing/ops/cases/rope';
import { packer } from '../../testing/ops/cases/stored';
import { atLevel, bitsOf, expectSameBits, levels } from './levels';

const keep = keeper();
afterAll(() => keep.dispose());

const SIZES: DeltaLayerSizes = { ...SMALL_DELTA, t: 45, before: 0 };
const { d } = SIZES;
const DATA = deltaLayerData(SIZES);
const WEIGHTS = deltaLayerWeights(DATA, SIZES);
for (const tensor of weightTensors(WEIGHTS)) keep.tensor(tensor);
const rowsOf = (from: number, to: number) => keep.tensor(float32(DATA.x.slice(from * d, to * d), [to - from, d]));
const bitsJoined = (parts: readonly Uint32Array[]) => Uint32Array.from(parts.flatMap((part) => [...part]));
/** What a state holds, as the outputs of rows that follow; the state is not changed. */
const probed = (state: Tensor): Uint32Array => {
  const copy = copyState(state);
  const bits = run(copy, 40, 45);
  copy.dispose();
  return bits;
};
function run(state: Tensor, from: number, to: number): Uint32Array {
  const table = keep.tensor(float32(new Float32Array(2 * (to - from)), [2, to - from, 1]));
  const [y, columns] = decoderLayer(
    rowsOf(from, to),
    state,
    table,
    noInt32(),
    keep.tensor(int32([0, from, 0])),
    WEIGHTS,
  );
  columns.dispose();
  return bitsOf([y])[0] ?? new Uint32Array();
}

describe.each(levels())('at %s', (level) => {
  test('cached equals full at every split, and the states are the same', () => {
    atLevel(level, () => {
      const parts = (borders: readonly number[]) => {
        const state = keep.tensor(allocState(SIZES));
        const y = bitsJoined(borders.slice(1).map((to, i) => run(state, borders[i] ?? 0, to)));
        return [y, probed(state)];
      };
      const full = parts([0, 40]);
      const cause =
        'a sum that depends on how many rows come together, or rows that the convolution misses (delta.cc).';
      for (const split of [1, 2, 3, 4, 17, 31, 32, 33, 39])
        expectSameBits(parts([0, split, 40]), full, `split at ${split}`, cause, d);
      const oneByOne = Array.from({ length: 41 }, (_, i) => i);
      expectSameBits(parts(oneByOne), full, 'one by one', cause, d);
    });
  });

  test('a copied state stays as it is', () => {
    atLevel(level, () => {
      const state = keep.tensor(allocState(SIZES));
      run(state, 0, 7);
      const copy = keep.tensor(copyState(state));
      const [before, then] = [probed(copy), probed(state)];
      run(state, 7, 9);
      expectSameBits([before, probed(copy)], [then, then], 'the copy', 'a copy that shares memory.', d);
      expect(probed(state)).not.toEqual(then);
    });
  });

  test('the fused layer equals its parts', () => {
    atLevel(level, () => {
      const fused = run(keep.tensor(allocState(SIZES)), 0, 40);
      expectSameBits([composed(40)], [fused], 'composed', 'another order of sums, or padding (decoder_layer.cc).', d);
    });
  });

  test('a batch through delta and attention layers equals each sequence by itself', () => {
    atLevel(level, () => {
      const { together, apart } = mixed();
      const cause = 'rows of one sequence that reach the state of another (delta.cc, decoder_layer.cc).';
      expectSameBits(together, apart, 'a batch', cause, d);
    });
  });
});

/** The layer composed of small ops. */
function composed(t: number): Uint32Array {
  const { tf } = start();
  const [width, values] = [deltaWidth(SIZES), SIZES.valueHeads * SIZES.valueWidth];
  const matrix = (weights: Float32Array, k: number) => keep.matrix(packer([weights], k, SIZES.type)());
  const vector = (numbers: Float32Array) => keep.tensor(float32(numbers, [numbers.length]));
  const eps = keep.tensor(float32([1e-6], [1]));
  const none = noFloat32();
  const record = keep.tensor(deltaRecord(DATA));
  const state = keep.tensor(allocState(SIZES));
  const y = tf.tidy(() => {
    const x = rowsOf(0, t);
    const normed = rmsNorm(x, vector(DATA.inputNorm), eps);
    const qkv = linear(normed, matrix(DATA.qkv.slice(0, width * d), d), none);
    const z = linear(normed, matrix(DATA.qkv.slice(width * d), d), none, 'silu');
    const read = deltaRule(qkv, linear(normed, matrix(DATA.ba, d), none), state, record, SIZES);
    const heads = tf.reshape(read, [t * SIZES.valueHeads, SIZES.valueWidth]);
    const gated = tf.mul(tf.reshape(rmsNorm(heads, vector(DATA.deltaNorm), eps), [t, values]), z);
    const h = tf.add(linear(gated, matrix(DATA.o, values), none), x);
    const lifted = rmsNorm(h, vector(DATA.postNorm), eps);
    const gate = linear(lifted, matrix(DATA.gate, d), none, 'silu');
    const hidden = tf.mul(gate, linear(lifted, matrix(DATA.up, d), none));
    return tf.add(linear(hidden, matrix(DATA.down, SIZES.ffn), none), h);
  });
  return bitsOf([y])[0] ?? new Uint32Array();
}

/** Two delta layers around one of attention, over three sequences of which two decode. */
function mixed(): { together: Uint32Array[]; apart: Uint32Array[] } {
  const counts = [1, 9, 1];
  const attention: DecoderLayerSizes = {
    ...SMALL_LAYER,
    t: 9,
    length: 20,
    tail: 0,
    listed: 0,
    qkNorm: true,
    bias: false,
  };
  const gated = { ...attention, gated: true, rotated: 18 };
  const own = decoderLayerData(gated);
  const weights = [
    deltaLayerWeights(DATA, SIZES, 0),
    decoderLayerWeights(own, gated, 1),
    deltaLayerWeights(DATA, SIZES, 2),
  ];
  for (const layer of weights) for (const tensor of weightTensors(layer)) keep.tensor(tensor);
  const histories = counts.map((_, i) => {
    const state = keep.tensor(allocState(SIZES));
    run(state, 3 * i, 3 * i + 5);
    return state;
  });
  const fresh = (i: number) => [
    keep.tensor(copyState(histories[i] as Tensor)),
    keep.tensor(filledCache(own.k, own.v, { kvHeads: 1, c: attention.c, type: 'f32', spare: 9 })),
    keep.tensor(copyState(histories[i] as Tensor)),
  ];
  const call = (sequences: readonly number[], caches: readonly Tensor[][]) => {
    const rows = sequences.flatMap((i) => Array.from({ length: counts[i] ?? 0 }, (_, row) => 9 * i + row));
    const values = rows.map((row) => noise(`mixed ${row}`, d));
    const x = keep.tensor(
      float32(
        values.flatMap((row) => [...row]),
        [rows.length, d],
      ),
    );
    const table = keep.tensor(
      ropeTable(
        rows.map((row) => 20 + (row % 9)),
        inverseFrequencies(18),
      ),
    );
    const segments = keep.tensor(int32(sequences.map((i) => counts[i] ?? 0)));
    const ranges = keep.tensor(int32(weights.flatMap(() => sequences.flatMap(() => [0, 20, 0]))));
    const layers: CachedLayer[] = weights.map((layer, at) => ({
      weights: layer,
      sequences: caches.map((cache) => ({ kv: cache[at] as Tensor, rows: noInt32() })),
    }));
    const [y, columns] = decoderLayers(x, table, { segments, ranges }, layers);
    columns.dispose();
    return bitsOf([y])[0] ?? new Uint32Array();
  };
  const sequences = counts.map((_, i) => i);
  const [batch, alone] = [sequences.map(fresh), sequences.map(fresh)];
  const states = (caches: readonly Tensor[][]) =>
    caches.flatMap((cache) => [probed(cache[0] as Tensor), probed(cache[2] as Tensor)]);
  return {
    together: [call(sequences, batch), ...states(batch)],
    apart: [bitsJoined(sequences.map((i) => call([i], [alone[i] as Tensor[]]))), ...states(alone)],
  };
}
