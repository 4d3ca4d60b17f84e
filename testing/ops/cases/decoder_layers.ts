// Cases of `decoderLayers`: a batch of sequences through two layers in one call, which has to equal each sequence by itself, layer by
// layer, bit for bit: outputs, columns and caches.

import { decoderLayer, decoderLayers } from '../../../src/ops/decoder_layer';
import { readKv } from '../../../src/ops/kv_cache';
import { ropeTable } from '../../../src/ops/rope';
import { float32, floats, int32 } from '../../../src/ops/run';
import type { Tensor } from '../../../src/runtime/tensor';
import { seenPairs } from './attention';
import { compare, keeper, type OpCase, type PreparedCase, take } from './case';
import { noise, pickAscending } from './data';
import { type DecoderLayerSizes, decoderLayerData, decoderLayerWeights, weightTensors } from './decoder_layer';
import { filledCache, slidingSpans } from './kv_cache';
import { inverseFrequencies } from './rope';
import { storedBytes } from './stored';

/** A sequence's rows of x, rows in its caches, and its view, which differs between the layers. */
interface SequenceSizes {
  readonly t: number;
  readonly length: number;
  readonly tail: number;
  readonly listed: number;
  readonly columns?: boolean;
  /** How many of the rows up to itself a row attends in the second layer; absent: all. */
  readonly window?: number;
}

type BatchSizes = Omit<DecoderLayerSizes, 't' | keyof SequenceSizes>;

const LAYERS = 2;

function batchCase(s: BatchSizes, sequences: readonly SequenceSizes[]): OpCase {
  const { d, heads, kvHeads, c, ffn, type, kvType, dot } = s;
  const rows = sequences.map(({ t }) => t).join(' + ');
  return {
    op: 'decoderLayers',
    name: `${rows} rows${sequences.some(({ window }) => window) ? ', some in windows,' : ''} x${d} ${heads}/${kvHeads}x${c} ffn ${ffn} kv ${kvType}`,
    dtype: dot ? 'bf16 dot' : type,
    tolerance: 'exact',
    big: false,
    prepare: () => prepare(s, sequences),
  };
}

function prepare(s: BatchSizes, sequences: readonly SequenceSizes[]): PreparedCase {
  const keep = keeper();
  const t = sequences.reduce((sum, one) => sum + one.t, 0);
  const sizes: DecoderLayerSizes = { ...s, t, length: 0, tail: 0, listed: 0 };
  const data = decoderLayerData(sizes);
  const weights = Array.from({ length: LAYERS }, (_, layer) => decoderLayerWeights(data, sizes, layer));
  for (const own of weights) for (const tensor of weightTensors(own)) keep.tensor(tensor);
  const x = data.x;
  const parts = sequences.map((one, i) => sequence(s, one, i, keep.tensor));
  const positions = parts.flatMap((part) => part.positions);
  const inputs = {
    x: keep.tensor(float32(x, [t, s.d])),
    table: keep.tensor(ropeTable(positions, inverseFrequencies(s.c))),
    segments: keep.tensor(int32(sequences.map((one) => one.t))),
    ranges: keep.tensor(int32(weights.flatMap(() => parts.flatMap(({ range }) => range)))),
    spans: sequences.some(({ window }) => window !== undefined)
      ? keep.tensor(
          int32(
            weights.flatMap((_, layer) => sequences.flatMap((one) => spansOf(one, layer))),
            [LAYERS, t, 2],
          ),
        )
      : undefined,
  };
  const caches = parts.map(({ cache }) => weights.map((_, layer) => keep.tensor(cache(layer))));
  const layers = weights.map((own, layer) => ({
    weights: own,
    sequences: parts.map(({ rows }, i) => ({ kv: caches[i]?.[layer] as Tensor, rows: rows[layer] as Tensor })),
  }));
  const run = (): Tensor[] => decoderLayers(inputs.x, inputs.table, inputs, layers);
  /** One sequence by itself, layer by layer; what is left in its caches, too. */
  const alone = (i: number, first: number) => {
    const { one, rows, range, cache, positions: own } = parts[i] as (typeof parts)[number];
    const inner = keeper();
    const table = inner.tensor(ropeTable(own, inverseFrequencies(s.c)));
    let y = inner.tensor(float32(x.slice(first * s.d, (first + one.t) * s.d), [one.t, s.d]));
    const columns: Float32Array[] = [];
    const ranges = inner.tensor(int32(weights.flatMap(() => range)));
    const intervals = weights.flatMap((_, layer) => spansOf(one, layer));
    const spans = one.window === undefined ? undefined : inner.tensor(int32(intervals, [LAYERS, one.t, 2]));
    const left = weights.map((w, layer) => {
      const kv = inner.tensor(cache(layer));
      const result = decoderLayer(y, kv, table, rows[layer] as Tensor, ranges, w, spans);
      y = inner.tensor(result[0]);
      columns.push(floats(inner.tensor(result[1])).slice());
      return written(kv, one, s.c);
    });
    const values = floats(y).slice();
    inner.dispose();
    return { y: values, columns, caches: left };
  };
  return {
    run,
    check() {
      const [y = new Float32Array(), columns = new Float32Array()] = take(run());
      const firsts = sequences.map((_, i) => sequences.slice(0, i).reduce((sum, one) => sum + one.t, 0));
      const expected = firsts.map((first, i) => alone(i, first));
      const layerwise = weights.flatMap((_, layer) => expected.map((one) => one.columns[layer] as Float32Array));
      const held = caches.flatMap((own, i) => own.map((kv) => written(kv, sequences[i] as SequenceSizes, s.c)));
      return [
        compare('y', y, joined(expected.map((one) => one.y))),
        compare('columns', columns, joined(layerwise)),
        compare('caches', joined(held), joined(expected.flatMap((one) => one.caches))),
      ];
    },
    bytes: LAYERS * storedBytes(s.type, 3 * s.ffn, s.d),
    flops: sequences.reduce((sum, one) => sum + 4 * s.heads * s.c * seenPairs(one.t, one.length + one.t), 0),
    dispose: keep.dispose,
  };
}

/** Absent in the first layer, where every row attends all up to itself. */
function spansOf({ t, length, tail, listed, window }: SequenceSizes, layer: number): number[] {
  const attended = listed + length - tail + t;
  return slidingSpans(t, attended, layer === 0 || window === undefined ? attended : window);
}

function sequence(s: BatchSizes, one: SequenceSizes, i: number, kept: (tensor: Tensor) => Tensor) {
  const { t, length, tail, listed, columns = false } = one;
  const rowsOf = (name: string) => noise(`batch ${i} ${name}`, length * s.kvHeads * s.c);
  const layers = Array.from({ length: LAYERS }, (_, layer) => layer);
  return {
    one,
    positions: Array.from({ length: t }, (_, row) => length + row + i),
    rows: layers.map((layer) => kept(int32(pickAscending(`batch ${i} ${layer} rows`, listed, tail)))),
    range: [tail, length, Number(columns)],
    cache: (layer: number): Tensor =>
      filledCache(rowsOf(`k ${layer}`), rowsOf(`v ${layer}`), {
        ...{ kvHeads: s.kvHeads, c: s.c, type: s.kvType },
        // Capacities differ as well.
        spare: t + i,
      }),
  };
}

/** The rows that a call appended. */
function written(kv: Tensor, { length, t }: SequenceSizes, c: number): Float32Array {
  const rows = readKv(kv, length, length + t, c);
  const values = floats(rows).slice();
  rows.dispose();
  return values;
}

function joined(arrays: readonly Float32Array[]): Float32Array {
  return Float32Array.from(arrays.flatMap((array) => [...array]));
}

const SIZES: BatchSizes = { d: 131, heads: 6, kvHeads: 2, c: 40, ffn: 203, type: 'f32', kvType: 'f32', bias: true };
/** Words of a prompt beside sequences that decode, one of them over a view; chunks of attention differ. */
const MIXED: readonly SequenceSizes[] = [
  { t: 1, length: 140, tail: 0, listed: 0 },
  { t: 9, length: 261, tail: 200, listed: 31, columns: true },
  { t: 1, length: 300, tail: 290, listed: 100, columns: true },
  { t: 23, length: 1, tail: 0, listed: 0 },
];
const WINDOWED: readonly SequenceSizes[] = MIXED.map((one, i) => (i % 2 === 1 ? { ...one, window: 17 } : one));
const DECODING: readonly SequenceSizes[] = Array.from({ length: 8 }, (_, i) => ({
  ...{ t: 1, length: 20 + 50 * i, tail: 7 * i, listed: 3 * i },
}));

export const DECODER_LAYERS_CASES: readonly OpCase[] = [MIXED, DECODING]
  .flatMap((sequences) => [
    batchCase(SIZES, sequences),
    batchCase({ ...SIZES, type: 'f16', kvType: 'bf16' }, sequences),
    batchCase({ ...SIZES, type: 'bf16', kvType: 'bf16' }, sequences),
    batchCase({ ...SIZES, type: 'bf16', kvType: 'bf16', dot: true }, sequences),
    batchCase({ ...SIZES, type: 'int4', kvType: 'bf16' }, sequences),
    batchCase({ ...SIZES, type: 'int4 fast', kvType: 'bf16' }, sequences),
    // Heads of whole vectors have kernels of their own, which fetch the next chunk.
    batchCase({ ...SIZES, c: 64 }, sequences),
    batchCase({ ...SIZES, c: 48, type: 'int4', kvType: 'bf16' }, sequences),
  ])
  .concat(batchCase(SIZES, WINDOWED));
