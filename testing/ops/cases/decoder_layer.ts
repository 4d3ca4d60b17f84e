// Cases of `decoderLayer`, its parts for specs that compose it, and its definition in double precision.

import {
  DECODER_VECTORS,
  type DecoderLayerWeights,
  decoderLayer,
  decoderLayerOptions,
  LAST_ROW_COLUMNS,
} from '../../../src/ops/decoder_layer';
import type { KvType } from '../../../src/ops/kv_cache';
import type { Activation } from '../../../src/ops/linear';
import { ropeTable } from '../../../src/ops/rope';
import { float32, floats, int32 } from '../../../src/ops/run';
import { recordValues } from '../../../src/ops/vectors';
import type { Tensor } from '../../../src/runtime/tensor';
import { decoderLayerReference, EPS } from '../references/decoder_layer';
import { seenPairs } from './attention';
import { coldCopies, compare, inTurn, keeper, type OpCase, once, type PreparedCase, take } from './case';
import { aroundOne, noise, pickAscending, rowsOf, sample } from './data';
import { filledCache, slidingSpans } from './kv_cache';
import { inverseFrequencies } from './rope';
import { packer, type StoredType, storedBytes, storedValues, toleranceOf } from './stored';

export interface DecoderLayerSizes {
  readonly t: number;
  readonly d: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly c: number;
  readonly ffn: number;
  /** Rows in the cache before x. */
  readonly length: number;
  /** Of them, first row of the contiguous rest, and how many below it are listed. */
  readonly tail: number;
  readonly listed: number;
  readonly type: StoredType;
  readonly kvType: KvType;
  readonly dot?: boolean;
  readonly bias?: boolean;
  /** `last`: of the last row alone, and no output. A number: of that many last rows. */
  readonly columns?: boolean | 'last' | number;
  /** Norms of each query and key head, and of what attention and the MLP give. */
  readonly qkNorm?: boolean;
  readonly postNorms?: boolean;
  /** Of the gate; default silu. */
  readonly activation?: Activation;
  /** Of scores; default c ** -0.5. */
  readonly scale?: number;
  /** Scores s become softcap tanh(s / softcap); default: they stay. */
  readonly softcap?: number;
  /** Number of rotary tables, of which the layer takes the last; default 1. */
  readonly tables?: number;
  /** How many of the rows up to itself a row attends; absent: all. */
  readonly window?: number;
  /** Whether each query head has a gate of what attention gives. */
  readonly gated?: boolean;
  /** Numbers of a head that are rotated; default all. */
  readonly rotated?: number;
  readonly big?: boolean;
}

type DeltaVector = 'conv' | 'aLog' | 'dtBias' | 'deltaNorm';

/** All inputs of a decoder layer, as numbers. Vectors that are absent are empty. */
export interface DecoderLayerData
  extends Readonly<Record<Exclude<(typeof DECODER_VECTORS)[number], 'eps' | DeltaVector>, Float32Array>> {
  readonly x: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly rows: Int32Array;
  readonly positions: readonly number[];
  readonly qkv: Float32Array;
  readonly o: Float32Array;
  readonly gate: Float32Array;
  readonly up: Float32Array;
  readonly down: Float32Array;
}

export function decoderLayerData(s: DecoderLayerSizes): DecoderLayerData {
  const seed = `decoder ${s.t} ${s.d} ${s.heads} ${s.kvHeads} ${s.c} ${s.type} `;
  const width = ((s.gated ? 2 : 1) * s.heads + 2 * s.kvHeads) * s.c;
  const matrix = (name: string, n: number, k: number) => storedValues(seed + name, n, k, s.type);
  return {
    x: noise(`${seed}x`, s.t * s.d),
    k: noise(`${seed}k`, s.length * s.kvHeads * s.c),
    v: noise(`${seed}v`, s.length * s.kvHeads * s.c),
    rows: pickAscending(`${seed}rows`, s.listed, s.tail),
    positions: Array.from({ length: s.t }, (_, i) => s.length + i + 3),
    inputNorm: aroundOne(`${seed}n1`, s.d),
    qNorm: aroundOne(`${seed}nq`, s.qkNorm ? s.c : 0),
    kNorm: aroundOne(`${seed}nk`, s.qkNorm ? s.c : 0),
    attentionNorm: aroundOne(`${seed}na`, s.postNorms ? s.d : 0),
    mlpNorm: aroundOne(`${seed}nm`, s.postNorms ? s.d : 0),
    qkv: matrix('qkv', width, s.d),
    qkvBias: noise(`${seed}bq`, s.bias ? width : 0, 0.3),
    o: matrix('o', s.d, s.heads * s.c),
    oBias: noise(`${seed}bo`, s.bias ? s.d : 0, 0.3),
    postNorm: aroundOne(`${seed}n2`, s.d),
    gate: matrix('gate', s.ffn, s.d),
    up: matrix('up', s.ffn, s.d),
    down: matrix('down', s.d, s.ffn),
  };
}

/** Packed weights of the layer `index`; the caller disposes of their tensors, which `weightTensors` lists. */
export function decoderLayerWeights(data: DecoderLayerData, s: DecoderLayerSizes, index = 0): DecoderLayerWeights {
  const options = { roundActivations: s.dot ?? false };
  const matrix = (values: Float32Array, k: number) => packer([values], k, s.type, options)();
  const given: Partial<Record<(typeof DECODER_VECTORS)[number], ArrayLike<number>>> = { ...data, eps: [EPS] };
  const { values, present } = recordValues(DECODER_VECTORS.map((name) => given[name]));
  const { activation = 'silu', scale = 0, softcap = 0, tables = 1, gated = false, rotated } = s;
  const settings = { activation, scale, softcap, table: tables - 1, gated, headWidth: rotated === undefined ? 0 : s.c };
  return {
    vectors: float32(values, [values.length]),
    options: int32(decoderLayerOptions(present, index, settings)),
    qkv: matrix(data.qkv, s.d),
    o: matrix(data.o, s.heads * s.c),
    gateUp: packer([data.gate, data.up], s.d, s.type, { ...options, gated: true })(),
    down: matrix(data.down, s.ffn),
  };
}

export function weightTensors(weights: DecoderLayerWeights): Tensor[] {
  return Object.values(weights).map((value: Tensor | { tensor: Tensor }) => ('tensor' in value ? value.tensor : value));
}

function decoderLayerCase(sizes: DecoderLayerSizes): OpCase {
  const {
    t,
    d,
    heads,
    kvHeads,
    c,
    ffn,
    length,
    listed,
    tail,
    type,
    kvType,
    dot,
    bias,
    columns,
    window,
    big = false,
  } = sizes;
  const { qkNorm, postNorms, activation = '', scale, softcap, tables, gated, rotated } = sizes;
  const whose = columns === 'last' ? 'last-row ' : typeof columns === 'number' ? `last ${columns} rows' ` : '';
  const flags = [bias ? 'bias' : '', columns ? `${whose}columns` : ''].concat(
    [qkNorm ? 'q/k norm' : '', postNorms ? 'post norms' : '', activation, scale === undefined ? '' : `scale ${scale}`],
    [gated ? 'gated' : '', rotated === undefined ? '' : `rotated ${rotated}`],
    window === undefined ? '' : `window ${window}`,
    softcap === undefined ? '' : `softcap ${softcap}`,
    tables === undefined ? '' : `table ${tables}`,
  );
  const extras = [...flags, `kv ${kvType}`].filter((text) => text !== '').join(' ');
  const view = listed || tail ? `${listed}+${length - tail}` : `${length}`;
  return {
    op: 'decoderLayer',
    name: `${t}x${d} ${heads}/${kvHeads}x${c} ffn ${ffn} over ${view} ${extras}`,
    dtype: dot ? 'bf16 dot' : type,
    tolerance: toleranceOf(type, dot) === 'f32' && kvType === 'bf16' ? 'bf16Store' : toleranceOf(type, dot),
    big,
    prepare: () => prepare(sizes),
  };
}

const SAMPLED_ROWS = 3;

function prepare(s: DecoderLayerSizes): PreparedCase {
  const keep = keeper();
  const data = decoderLayerData(s);
  const parameters = data.qkv.length + data.o.length + 3 * data.gate.length;
  const width = ((s.gated ? 2 : 1) * s.heads + 2 * s.kvHeads) * s.c;
  const sizes = [
    [width, s.d],
    [s.d, s.heads * s.c],
    [2 * s.ffn, s.d],
    [s.d, s.ffn],
  ] as const;
  const weightBytes = sizes.reduce((sum, [rows, k]) => sum + storedBytes(s.type, rows, k), 0);
  const copies = Array.from({ length: s.big && s.t <= 8 ? coldCopies(weightBytes) : 1 }, () => {
    const weights = decoderLayerWeights(data, s);
    for (const tensor of weightTensors(weights)) keep.tensor(tensor);
    const cache = { kvHeads: s.kvHeads, c: s.c, type: s.kvType, spare: s.t };
    return { weights, kv: keep.tensor(filledCache(data.k, data.v, cache)) };
  });
  const next = inTurn(copies);
  const x = keep.tensor(float32(data.x, [s.t, s.d]));
  const table = keep.tensor(tablesOf(data.positions, s));
  const rows = keep.tensor(int32(data.rows));
  const whose = typeof s.columns === 'number' ? -s.columns : Number(s.columns ?? false);
  const range = keep.tensor(int32([s.tail, s.length, s.columns === 'last' ? LAST_ROW_COLUMNS : whose]));
  const sliding = s.window && slidingSpans(s.t, s.listed + s.length - s.tail + s.t, s.window);
  const spans = sliding ? keep.tensor(int32(sliding, [1, s.t, 2])) : undefined;
  const run = (): Tensor[] => {
    const { kv, weights } = next();
    return decoderLayer(x, kv, table, rows, range, weights, spans);
  };
  const queries = s.columns === 'last' ? [s.t - 1] : sample(s.t, s.big ? SAMPLED_ROWS : s.t);
  const reference = once(() => decoderLayerReference(data, s, queries));
  const raters = typeof s.columns === 'number' ? sample(s.t, s.t).slice(-s.columns) : queries;
  const rated = once(() => (raters === queries ? reference() : decoderLayerReference(data, s, raters)));
  const attended = s.listed + s.length - s.tail;
  const kvBytes = 2 * s.kvHeads * s.c * (s.kvType === 'bf16' ? 2 : 4) * (attended + s.t);
  return {
    run,
    check() {
      const [y = new Float32Array(), columns = new Float32Array()] = take(run());
      const expected = reference();
      if (s.columns === 'last') return [compare('y', y, []), compare('columns', columns, expected.columns)];
      const result = [compare('y', y.length === s.t * s.d ? rowsOf(y, s.d, queries) : y, expected.y)];
      if (s.columns && queries.length === s.t) result.push(compare('columns', columns, rated().columns));
      return result;
    },
    bytes: weightBytes + kvBytes + 8 * s.t * s.d,
    flops: 2 * s.t * parameters + 4 * s.heads * s.c * seenPairs(s.t, attended + s.t),
    dispose: keep.dispose,
  };
}

/** The rotary tables of a layer, its own last. */
function tablesOf(positions: readonly number[], { c, tables = 1, rotated = c }: DecoderLayerSizes): Tensor {
  const made = Array.from({ length: tables }, (_, i) =>
    ropeTable(
      positions.map((position) => position + 17 * (tables - 1 - i)),
      inverseFrequencies(rotated),
    ),
  );
  const values = made.flatMap((table) => [...floats(table)]);
  for (const table of made) table.dispose();
  return float32(Float32Array.from(values), [2 * tables, positions.length, rotated / 2]);
}

/** One group of 7; every size different from every other. */
export const SMALL_LAYER: DecoderLayerSizes = {
  ...{ t: 9, d: 131, heads: 7, kvHeads: 1, c: 72, ffn: 203 },
  ...{ length: 150, tail: 137, listed: 41, type: 'f32', kvType: 'f32', bias: true, columns: true },
};
const UNGROUPED: DecoderLayerSizes = {
  ...{ t: 5, d: 72, heads: 3, kvHeads: 3, c: 40, ffn: 259 },
  ...{ length: 131, tail: 0, listed: 0, type: 'bf16', kvType: 'bf16' },
};
/** Four norms, a norm of each head, a GELU gate, and scores of another scale, as Gemma 3 has them. */
export const GEMMA_LIKE: DecoderLayerSizes = {
  ...{ t: 11, d: 72, heads: 4, kvHeads: 2, c: 40, ffn: 171, length: 140, tail: 0, listed: 0 },
  ...{ type: 'f32', kvType: 'f32', qkNorm: true, postNorms: true, activation: 'gelu_pytorch_tanh', scale: 0.25 },
};
/** A gate of each head, and a quarter of it rotated, as Qwen3.5 has them. */
const GATED: DecoderLayerSizes = { ...SMALL_LAYER, qkNorm: true, bias: false, gated: true, rotated: 18 };
/** The decoder of Qwen2-0.5B. */
const QWEN2_HALF: DecoderLayerSizes = {
  ...{ t: 1, d: 896, heads: 14, kvHeads: 2, c: 64, ffn: 4864 },
  ...{ length: 1024, tail: 0, listed: 0, type: 'bf16', kvType: 'bf16', bias: true, big: true },
};

export const DECODER_LAYER_CASES: readonly OpCase[] = [
  decoderLayerCase(SMALL_LAYER),
  decoderLayerCase({ ...SMALL_LAYER, t: 1 }),
  decoderLayerCase({ ...SMALL_LAYER, columns: 'last' }),
  decoderLayerCase({ ...UNGROUPED, t: 1, columns: 'last', window: 100 }),
  decoderLayerCase({ ...SMALL_LAYER, qkNorm: true, bias: false }),
  decoderLayerCase({ ...UNGROUPED, type: 'int4', qkNorm: true }),
  decoderLayerCase({ ...GEMMA_LIKE }),
  decoderLayerCase({ ...GEMMA_LIKE, t: 1, type: 'bf16', kvType: 'bf16', window: 30 }),
  decoderLayerCase({ ...GEMMA_LIKE, type: 'int4', columns: 'last' }),
  decoderLayerCase(GATED),
  decoderLayerCase({ ...GATED, t: 1, type: 'bf16', kvType: 'bf16' }),
  decoderLayerCase({ ...GATED, type: 'int4', columns: 'last' }),
  decoderLayerCase({ ...SMALL_LAYER, window: 20 }),
  decoderLayerCase({ ...SMALL_LAYER, columns: 4 }),
  decoderLayerCase({ ...SMALL_LAYER, columns: 2, window: 20 }),
  // A cap that most scores reach in part, over both branches of tanh: few queries and many.
  decoderLayerCase({ ...GEMMA_LIKE, softcap: 2, tables: 2 }),
  decoderLayerCase({ ...GEMMA_LIKE, softcap: 0.7, t: 1, columns: 'last', tables: 3 }),
  decoderLayerCase({ ...UNGROUPED, softcap: 1.5, t: 1, columns: true }),
  decoderLayerCase({ ...UNGROUPED, t: 1, length: 300, window: 100, columns: true }),
  decoderLayerCase({ ...SMALL_LAYER, t: 1, length: 0, tail: 0, listed: 0 }),
  decoderLayerCase({ ...SMALL_LAYER, t: 37, length: 0, tail: 0, listed: 0, type: 'f16' }),
  decoderLayerCase({ ...SMALL_LAYER, type: 'bf16', kvType: 'bf16' }),
  decoderLayerCase({ ...SMALL_LAYER, type: 'bf16', kvType: 'bf16', dot: true }),
  decoderLayerCase({ ...SMALL_LAYER, type: 'int4' }),
  decoderLayerCase({ ...SMALL_LAYER, t: 1, type: 'int4 fast' }),
  decoderLayerCase({ ...UNGROUPED, type: 'int4' }),
  decoderLayerCase(UNGROUPED),
  decoderLayerCase({ ...UNGROUPED, t: 1, tail: 120, listed: 13, columns: true }),
  decoderLayerCase({ ...UNGROUPED, type: 'f32', kvType: 'f32' }),
  decoderLayerCase(QWEN2_HALF),
  decoderLayerCase({ ...QWEN2_HALF, dot: true }),
  decoderLayerCase({ ...QWEN2_HALF, t: 512 }),
  decoderLayerCase({ ...QWEN2_HALF, t: 512, dot: true }),
  decoderLayerCase({ ...QWEN2_HALF, type: 'int4' }),
  decoderLayerCase({ ...QWEN2_HALF, t: 512, type: 'int4' }),
];
