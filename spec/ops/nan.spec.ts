// NaN in, NaN out: an op never turns a NaN of any payload into a number; and rows that a query
// does not see, or that nobody has written, leave no trace even when they are NaN.

import { attention, gatheredSparseAttention } from '../../src/ops/attention';
import { decoderLayer } from '../../src/ops/decoder_layer';
import { type Activation, gatedMlp, linear } from '../../src/ops/linear';
import { layerNorm, rmsNorm } from '../../src/ops/norm';
import { rope, ropeTable } from '../../src/ops/rope';
import { float32, floats, int32 } from '../../src/ops/run';
import { visionBlock } from '../../src/ops/vision_block';
import { packArrays } from '../../src/ops/weights';
import type { Tensor } from '../../src/runtime/tensor';
import { keeper } from '../../testing/ops/cases/case';
import { noise } from '../../testing/ops/cases/data';
import {
  decoderLayerData,
  decoderLayerWeights,
  SMALL_LAYER,
  weightTensors,
} from '../../testing/ops/cases/decoder_layer';
import { filledCache } from '../../testing/ops/cases/kv_cache';
import { inverseFrequencies } from '../../testing/ops/cases/rope';
import { packer, storedValues } from '../../testing/ops/cases/stored';
import { SMALL_BLOCK, visionBlockData, visionBlockWeights } from '../../testing/ops/cases/vision_block';
import { atLevel, bitsOf, expectSameBits, levels, withThreads, wordsOf } from './levels';

const keep = keeper();
afterAll(() => keep.dispose());

/** Quiet NaNs of both signs and with low payload bits: processors pass payloads on, and integer tricks can trip on them. */
const NANS = [0x7fc00000, 0x7fc00001, 0xffc00000, 0xffffffff, 0x7fc0ffff];

/** Sets one element's bits. JavaScript may change a NaN that it handles as a number. */
function poison(values: Float32Array, at: number, bits: number): Float32Array {
  wordsOf(values)[at] = bits;
  return values;
}

function tensor(values: Float32Array, shape: readonly number[]): Tensor {
  return keep.tensor(float32(values, shape));
}

/** All rows except the first, in place of x. */
function lastRows(x: Tensor, width: number): Tensor {
  const values = floats(x);
  x.dispose();
  return float32(values.slice(width), [values.length - width]);
}

/** Fails unless exactly the elements that should be NaN are. */
function expectNaN(output: Tensor, should: (index: number) => boolean, where: string): void {
  const values = floats(output);
  output.dispose();
  const wrong = values.findIndex((value, i) => Number.isNaN(value) !== should(i));
  const message =
    `${where}: element ${wrong} of ${values.length} is ${values[wrong]} but ${should(wrong) ? 'should' : 'should not'} be ` +
    'NaN. Likely cause: a maximum or an integer trick that drops NaN, a test such as `sum > 0`, or an index.';
  expect(wrong < 0 ? 'as expected' : message).toBe('as expected');
}

const ACTIVATIONS: readonly Activation[] = ['none', 'gelu_pytorch_tanh', 'gelu', 'quick_gelu', 'silu'];

describe.each(levels())('at %s', (level) => {
  test.each(ACTIVATIONS)('linear with activation %s', (activation) => {
    const [t, k, n] = [7, 131, 37];
    for (const type of ['f32', 'f16', 'bf16', 'int4', 'int4 fast', 'int8'] as const)
      for (const bits of NANS) {
        const values = storedValues('nan w', n, k, type);
        const w = keep.matrix(packer([values], k, type, { roundActivations: type === 'bf16' })());
        const x = tensor(poison(noise('nan x', t * k), 3 * k + k - 1, bits), [t, k]);
        const y = atLevel(level, () => linear(x, w, tensor(new Float32Array(), [0]), activation));
        expectNaN(y, (i) => Math.floor(i / n) === 3, `${type} ${bits.toString(16)}`);
      }
  });

  test('gatedMlp, norms and rope', () => {
    const [t, d, m] = [3, 72, 37];
    const [gate, up, down] = ['g', 'u', 'd'].map((name) => noise(`nan ${name}`, m * d)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const gateUp = keep.matrix(packArrays([gate, up], d, { gated: true }));
    const last = keep.matrix(packArrays([down], m));
    const [w, eps] = [tensor(noise('nan norm', d), [d]), tensor(Float32Array.of(1e-6), [1])];
    const table = keep.tensor(ropeTable([1, 2, 3], inverseFrequencies(d)));
    for (const bits of NANS) {
      const values = poison(noise('nan rows', t * d), d + 5, bits);
      const x = tensor(values, [t, d]);
      const row = (i: number) => Math.floor(i / d) === 1;
      const name = bits.toString(16);
      atLevel(level, () => {
        expectNaN(gatedMlp(x, gateUp, last), row, `gatedMlp ${name}`);
        expectNaN(rmsNorm(x, w, eps), row, `rmsNorm ${name}`);
        expectNaN(layerNorm(x, w, w, eps), row, `layerNorm ${name}`);
        const pair = (i: number) => i === d + 5 || i === d + 5 + d / 2;
        expectNaN(rope(tensor(values, [t, 1, d]), table), pair, `rope ${name}`);
      });
    }
  });

  // The row is alone in the last chunk of 128, inside a chunk, or the first of all.
  test.each([
    { n: 129, at: 128 },
    { n: 149, at: 128 },
    { n: 301, at: 140 },
    { n: 40, at: 0 },
  ])('attention with a NaN key or value in row $at of $n', ({ n, at }) => {
    const [t, heads, c] = [3, 2, 40];
    const q = tensor(noise('nan q', t * heads * c), [t, heads, c]);
    for (const bits of NANS) {
      const clean = () => noise('nan kv', n * heads * c);
      const k = tensor(clean(), [n, heads, c]);
      const badK = tensor(poison(clean(), at * heads * c + c + 3, bits), [n, heads, c]);
      const badV = badK;
      const head1 = (i: number) => Math.floor(i / c) % heads === 1;
      for (const threads of [1, 5])
        atLevel(level, () =>
          withThreads(threads, () => {
            const byKey = attention(q, badK, k, { columns: true });
            expectNaN(byKey.out, head1, `key ${bits.toString(16)}, ${threads} threads`);
            expectNaN(byKey.columns, () => true, `columns of key ${bits.toString(16)}, ${threads} threads`);
            const byValue = attention(q, k, badV);
            const element = (i: number) => head1(i) && i % c === 3;
            expectNaN(byValue.out, element, `value ${bits.toString(16)}, ${threads} threads`);
            byValue.columns.dispose();
          }),
        );
    }
  });

  test('attention with a NaN query', () => {
    const [t, n, heads, c] = [5, 149, 3, 17];
    const k = tensor(noise('nan kv', n * heads * c), [n, heads, c]);
    for (const bits of NANS) {
      const q = tensor(poison(noise('nan q', t * heads * c), (2 * heads + 1) * c, bits), [t, heads, c]);
      atLevel(level, () => {
        const { out, columns } = attention(q, k, k, { columns: true });
        expectNaN(out, (i) => Math.floor(i / c) === 2 * heads + 1, bits.toString(16));
        expectNaN(columns, () => true, `columns ${bits.toString(16)}`);
      });
    }
  });

  test('rows that no query attends have no effect', () => {
    const [t, length, heads, kvHeads, c] = [2, 301, 14, 2, 40];
    const tail = 280;
    const list = Array.from({ length: 90 }, (_, i) => 3 * i + 1);
    const seen = (row: number) => list.includes(row) || (row >= tail && row < length);
    const values = noise('traces', (length + 40) * kvHeads * c);
    const poisoned = values.map((value, i) => (seen(Math.floor(i / (kvHeads * c))) ? value : Number.NaN));
    const q = tensor(noise('traces q', t * heads * c), [t, heads, c]);
    const rows = keep.tensor(int32(list));
    for (const type of ['f32', 'bf16'] as const) {
      const [clean, dirty] = [values, poisoned].map((x) => {
        const kv = keep.tensor(filledCache(x, x, { kvHeads, c, type }));
        const result = atLevel(level, () => gatheredSparseAttention(q, kv, rows, { tail, length, columns: true }));
        return bitsOf([result.out, result.columns]);
      }) as [Uint32Array[], Uint32Array[]];
      expectSameBits(
        dirty,
        clean,
        `${type} cache`,
        'a row outside the view is read (row_at or padding in attention.inl).',
      );
    }
  });

  test('decoderLayer and visionBlock', () => {
    for (const bits of NANS) {
      const layer = { ...SMALL_LAYER, t: 3 };
      const data = decoderLayerData(layer);
      const weights = decoderLayerWeights(data, layer);
      for (const kept of weightTensors(weights)) keep.tensor(kept);
      const x = tensor(poison(data.x, layer.d + 7, bits), [layer.t, layer.d]);
      const cache = { kvHeads: layer.kvHeads, c: layer.c, type: layer.kvType, spare: layer.t };
      const kv = keep.tensor(filledCache(data.k, data.v, cache));
      const table = keep.tensor(ropeTable(data.positions, inverseFrequencies(layer.c)));
      const rows = keep.tensor(int32(data.rows));
      const range = keep.tensor(int32([layer.tail, layer.length, 0]));
      atLevel(level, () => {
        const [y, columns] = decoderLayer(x, kv, table, rows, range, weights);
        columns.dispose();
        // Row 1 is NaN, and so are the results of queries that see it. Row 0 shares its strip but does not see it: there it counts 0 times.
        expectNaN(lastRows(y, layer.d), () => true, `decoderLayer ${bits.toString(16)}`);
      });
    }
    const block = visionBlockData(SMALL_BLOCK);
    const w = visionBlockWeights(block, SMALL_BLOCK, keep);
    const image = tensor(poison(block.x, 5, 0x7fc00001), [SMALL_BLOCK.n, SMALL_BLOCK.e]);
    atLevel(level, () => {
      const [y, columns] = visionBlock(image, w, { features: true, columns: true });
      expectNaN(y, () => true, 'visionBlock');
      expectNaN(columns, () => true, 'visionBlock columns');
      const only = visionBlock(image, w, { features: false, columns: true });
      only[0].dispose();
      expectNaN(only[1], () => true, 'visionBlock columns only');
    });
  });
});
