// Cases of `visionBlock`, its parts for specs that compose it, and its definition in double precision.

import type { Activation } from '../../../src/ops/linear';
import { type Position, ropeTable } from '../../../src/ops/rope';
import { float32, floats, int32 } from '../../../src/ops/run';
import { recordValues } from '../../../src/ops/vectors';
import { VISION_VECTORS, type VisionBlockWeights, visionBlock } from '../../../src/ops/vision_block';
import type { Tensor } from '../../../src/runtime/tensor';
import { attentionReference } from '../references/attention';
import { gatedLinearReference, linearReference } from '../references/linear';
import { layerNormReference, rmsNormReference } from '../references/norm';
import { ropeReference } from '../references/rope';
import { compare, keeper, type OpCase, once, type PreparedCase, take } from './case';
import { aroundOne, noise, rowsOf, sample } from './data';
import { inverseFrequencies } from './rope';
import { packer, type StoredType, storedBytes, storedValues, toleranceOf } from './stored';

const EPS = 1e-6;

export interface VisionBlockSizes {
  readonly n: number;
  readonly e: number;
  readonly heads: number;
  readonly ffn: number;
  readonly type: StoredType;
  readonly activation: Activation;
  readonly features: boolean;
  readonly columns: boolean | 'first';
  readonly keys?: boolean;
  /** RMSNorm instead of LayerNorm. */
  readonly rms?: boolean;
  /** An MLP of gate and up instead of fc1. */
  readonly gated?: boolean;
  readonly rope?: boolean;
  readonly qkNorm?: boolean;
  readonly layerScale?: boolean;
  readonly dot?: boolean;
  /** Rows of a window, within which rows attend each other; absent: all rows. */
  readonly window?: number;
  readonly big?: boolean;
}

type VectorName = (typeof VISION_VECTORS)[number];

/** Everything that a vision block is called with, as numbers. Vectors that are absent are empty. */
export interface VisionBlockData extends Readonly<Record<Exclude<VectorName, 'eps'>, Float32Array>> {
  readonly x: Float32Array;
  readonly qkv: Float32Array;
  readonly out: Float32Array;
  /** Or the gate. */
  readonly fc1: Float32Array;
  readonly up: Float32Array;
  readonly fc2: Float32Array;
}

export function visionBlockData(s: VisionBlockSizes): VisionBlockData {
  const { n, e, heads, ffn, type, rms = false, gated = false, qkNorm = false, layerScale = false } = s;
  const seed = `vision ${n} ${e} ${heads} `;
  const vector = (name: string, size: number, isThere = true) => noise(seed + name, isThere ? size : 0, 0.3);
  const weight = (name: string, isThere = true) => aroundOne(seed + name, isThere ? e : 0);
  return {
    x: noise(`${seed}x`, n * e),
    norm1: aroundOne(`${seed}n1`, e),
    norm1Bias: vector('b1', e, !rms),
    qNorm: weight('nq', qkNorm),
    kNorm: weight('nk', qkNorm),
    scale1: weight('s1', layerScale),
    scale2: weight('s2', layerScale),
    qkv: storedValues(`${seed}qkv`, 3 * e, e, type),
    qkvBias: vector('bq', 3 * e),
    out: storedValues(`${seed}out`, e, e, type),
    outBias: vector('bo', e),
    norm2: aroundOne(`${seed}n2`, e),
    norm2Bias: vector('b2', e, !rms),
    fc1: storedValues(`${seed}fc1`, ffn, e, type),
    up: storedValues(`${seed}up`, gated ? ffn : 0, e, type),
    fc1Bias: vector('b3', gated ? 2 * ffn : ffn),
    fc2: storedValues(`${seed}fc2`, e, ffn, type),
    fc2Bias: vector('b4', e),
  };
}

/** Packed weights; `keep` disposes of them. */
export function visionBlockWeights(
  data: VisionBlockData,
  s: VisionBlockSizes,
  keep: ReturnType<typeof keeper>,
): VisionBlockWeights {
  const options = { roundActivations: s.dot ?? false };
  const matrix = (values: Float32Array, k: number) => keep.matrix(packer([values], k, s.type, options)());
  const vectors = recordValues(VISION_VECTORS.map((name) => (name === 'eps' ? [EPS] : data[name])));
  const gateUp = packer([data.fc1, data.up], s.e, s.type, { ...options, gated: true });
  return {
    vectors: { tensor: keep.tensor(float32(vectors.values, [vectors.values.length])), present: vectors.present },
    qkv: matrix(data.qkv, s.e),
    out: matrix(data.out, s.e),
    fc1: s.gated ? keep.matrix(gateUp()) : matrix(data.fc1, s.e),
    fc2: matrix(data.fc2, s.ffn),
    heads: s.heads,
    activation: s.activation,
  };
}

/** Rotary positions by row and column: half of the frequencies each, over a raster of 7 patches a row. */
export function visionTable({ n, e, heads }: VisionBlockSizes): Tensor {
  const half = e / heads / 2;
  const axes = Uint8Array.from({ length: half }, (_, j) => (j < half / 2 ? 1 : 2));
  const positions = Array.from({ length: n }, (_, i): Position => [0, Math.floor(i / 7), i % 7]);
  return ropeTable(positions, inverseFrequencies(2 * half, 100), axes);
}

/** The definition, for the rows that `queries` lists. The mean of the columns over all rows is right only when all are. */
export function visionBlockReference(data: VisionBlockData, s: VisionBlockSizes, queries: readonly number[]) {
  const { e, heads, n, window = n } = s;
  const c = e / heads;
  const eps = Math.fround(EPS);
  const norm = (x: ArrayLike<number>, weight: Float32Array, bias: Float32Array) =>
    bias.length > 0 ? layerNormReference(x, weight, bias, eps) : rmsNormReference(x, weight, eps);
  const normed = norm(data.x, data.norm1, data.norm1Bias);
  const project = (part: number) =>
    linearReference(
      normed,
      data.qkv.subarray(part * e * e, (part + 1) * e * e),
      e,
      data.qkvBias.subarray(part * e, (part + 1) * e),
    );
  const table = visionTable(s);
  const angles = floats(table).slice();
  table.dispose();
  const turned = (x: Float64Array, weight: Float32Array) => {
    const own = weight.length > 0 ? rmsNormReference(x, weight, eps) : x;
    return s.rope ? ropeReference(own, angles, heads, c) : own;
  };
  const keys = project(1);
  const [q, k, v] = [turned(project(0), data.qNorm), turned(keys, data.kNorm), project(2)];
  const attend = (rows: readonly number[]) =>
    attentionReference(rowsOf(q, e, rows), k, v, { t: rows.length, heads, kvHeads: heads, c }, (i, j) => {
      return Math.floor((rows[i] ?? 0) / window) === Math.floor(j / window);
    });
  const attended = attend(queries);
  const add = (y: Float64Array, scale: Float32Array, x: ArrayLike<number>) =>
    y.map((value, i) => value * (scale[i % e] ?? 1) + (x[i] as number));
  const projected = linearReference(attended.out, data.out, e, data.outBias);
  const h = add(projected, data.scale1, rowsOf(data.x, e, queries));
  const lifted = norm(h, data.norm2, data.norm2Bias);
  const { fc1: gate, up, fc1Bias: bias } = data;
  const hidden = s.gated
    ? gatedLinearReference(lifted, { gate, up, bias }, e, s.activation)
    : linearReference(lifted, gate, e, bias, s.activation);
  const y = add(linearReference(hidden, data.fc2, s.ffn, data.fc2Bias), data.scale2, h);
  return { y, keys, columns: s.columns === 'first' ? attend([0]).columns : attended.columns };
}

function visionBlockCase(sizes: VisionBlockSizes): OpCase {
  const { n, e, heads, ffn, type, activation, features, columns, keys, dot, window, big = false } = sizes;
  const flags = (['rms', 'gated', 'rope', 'qkNorm', 'layerScale'] as const).filter((flag) => sizes[flag]);
  const outputs = [columns && `${columns === 'first' ? 'first-row ' : ''}columns`, keys && 'keys'].filter(Boolean);
  const wants = [...flags, ...outputs, ...(features ? [] : ['only'])].map((text) => ` ${text}`).join('');
  return {
    op: 'visionBlock',
    name: `${n}x${e} ${heads}x${e / heads} ffn ${ffn} ${activation}${window === undefined ? '' : ` windows of ${window}`}${wants}`,
    dtype: dot ? 'bf16 dot' : type,
    tiles: n >= TILE_PATCHES && window === undefined,
    tolerance: toleranceOf(type, dot),
    big,
    prepare: () => prepare(sizes),
  };
}

/** With so many patches that attend each other, attention runs on matrix tiles where the processor has them. */
const TILE_PATCHES = 256;
const SAMPLED_ROWS = 3;

function prepare(s: VisionBlockSizes): PreparedCase {
  const keep = keeper();
  const data = visionBlockData(s);
  const weights = visionBlockWeights(data, s, keep);
  const x = keep.tensor(float32(data.x, [s.n, s.e]));
  const { features, columns, keys = false, window } = s;
  const borders = Array.from({ length: s.n }, (_, i) => Math.floor(i / (window ?? s.n)) * (window ?? s.n));
  const intervals = borders.flatMap((from) => [from, Math.min(s.n, from + (window ?? s.n))]);
  const spans = window === undefined ? undefined : keep.tensor(int32(intervals, [s.n, 2]));
  const table = s.rope ? keep.tensor(visionTable(s)) : undefined;
  const run = (): Tensor[] => visionBlock(x, weights, { features, columns, keys, table, spans });
  const queries = sample(s.n, s.big ? SAMPLED_ROWS : s.n);
  const reference = once(() => visionBlockReference(data, s, queries));
  const lifts = s.gated ? 2 : 1;
  const parameters = s.features ? 4 * s.e * s.e + (1 + lifts) * s.e * s.ffn : 2 * s.e * s.e;
  const bytesOf = (rows: number, k: number) => storedBytes(s.type, rows, k);
  const weightBytes = s.features
    ? bytesOf(4 * s.e, s.e) + bytesOf(lifts * s.ffn, s.e) + bytesOf(s.e, s.ffn)
    : bytesOf(2 * s.e, s.e);
  return {
    run,
    check() {
      const [y = new Float32Array(), columns = new Float32Array(), keys = new Float32Array()] = take(run());
      const lengths = [s.features, s.keys].map((isWanted) => (isWanted ? s.n * s.e : 0));
      const result = [compare('lengths', [y.length, keys.length], lengths)];
      if (s.keys) result.push(compare('keys', keys, reference().keys));
      if (s.features) result.push(compare('y', rowsOf(y, s.e, queries), reference().y));
      if (s.columns) result.push(compare('sum of columns', [columns.reduce((a, b) => a + b, 0)], [1]));
      if (s.columns && (queries.length === s.n || s.columns === 'first'))
        result.push(compare('columns', columns, reference().columns));
      return result;
    },
    bytes: weightBytes + 4 * s.n * s.e * (s.features ? 2 : 1),
    flops: 2 * s.n * parameters + (s.features ? 4 : 2) * s.n * s.n * s.e,
    dispose: keep.dispose,
  };
}

/** Two heads of 72; query and key outputs (288) fill whole strips. */
export const SMALL_BLOCK: VisionBlockSizes = {
  ...{ n: 37, e: 144, heads: 2, ffn: 203 },
  ...{ type: 'f32', activation: 'gelu_pytorch_tanh', features: true, columns: true },
};
/** Heads of 40. */
export const QWEN_BLOCK: VisionBlockSizes = {
  ...{ n: 41, e: 120, heads: 3, ffn: 171, rms: true, gated: true, rope: true },
  ...{ type: 'f32', activation: 'silu', features: true, columns: true },
};
/** Query and key outputs (108) end inside a strip, which matters when values are left out. */
const NARROW_BLOCK: VisionBlockSizes = {
  ...{ n: 131, e: 54, heads: 3, ffn: 259 },
  ...{ type: 'bf16', activation: 'quick_gelu', features: true, columns: false },
};
/** A ViT-L of 1024 patches, as CLIP and SigLIP towers are. */
const LARGE_BLOCK: VisionBlockSizes = {
  ...{ n: 1024, e: 1024, heads: 16, ffn: 4096 },
  ...{ type: 'bf16', activation: 'gelu_pytorch_tanh', features: true, columns: false, big: true },
};

export const VISION_BLOCK_CASES: readonly OpCase[] = [
  visionBlockCase(SMALL_BLOCK),
  visionBlockCase({ ...SMALL_BLOCK, features: false }),
  visionBlockCase({ ...SMALL_BLOCK, n: 1, activation: 'gelu', type: 'f16' }),
  visionBlockCase({ ...SMALL_BLOCK, type: 'bf16', dot: true }),
  visionBlockCase({ ...SMALL_BLOCK, type: 'int8' }),
  visionBlockCase(NARROW_BLOCK),
  visionBlockCase({ ...NARROW_BLOCK, type: 'int8' }),
  visionBlockCase({ ...NARROW_BLOCK, features: false, columns: true }),
  visionBlockCase({ ...NARROW_BLOCK, columns: true, window: 29 }),
  visionBlockCase({ ...SMALL_BLOCK, features: false, window: 16 }),
  visionBlockCase({ ...SMALL_BLOCK, columns: 'first', keys: true }),
  visionBlockCase({ ...SMALL_BLOCK, columns: 'first', features: false }),
  visionBlockCase({ ...SMALL_BLOCK, columns: false, features: false, keys: true }),
  ...(['f32', 'bf16', 'int4', 'int8'] as const).map((type) => visionBlockCase({ ...QWEN_BLOCK, type })),
  visionBlockCase({ ...QWEN_BLOCK, window: 16, keys: true }),
  visionBlockCase({ ...QWEN_BLOCK, gated: false, rms: false, activation: 'quick_gelu' }),
  visionBlockCase({ ...SMALL_BLOCK, rms: true, qkNorm: true, layerScale: true, activation: 'gelu', keys: true }),
  visionBlockCase({ ...NARROW_BLOCK, layerScale: true, columns: 'first' }),
  visionBlockCase({ ...SMALL_BLOCK, n: 261 }),
  visionBlockCase({ ...SMALL_BLOCK, n: 257, features: false }),
  visionBlockCase({ ...QWEN_BLOCK, n: 300, type: 'int8' }),
  visionBlockCase(LARGE_BLOCK),
  visionBlockCase({ ...LARGE_BLOCK, dot: true }),
  visionBlockCase({ ...LARGE_BLOCK, type: 'int8' }),
  visionBlockCase({ ...LARGE_BLOCK, columns: true }),
  visionBlockCase({ ...LARGE_BLOCK, features: false, columns: true }),
  visionBlockCase({ ...LARGE_BLOCK, columns: 'first' }),
  visionBlockCase({
    ...QWEN_BLOCK,
    n: 4096,
    e: 1280,
    heads: 16,
    ffn: 3420,
    type: 'bf16',
    columns: false,
    window: 64,
    big: true,
  }),
];
