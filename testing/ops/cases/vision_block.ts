// Cases of `visionBlock`, its parts for specs that compose it, and its definition in double precision.

import type { Activation } from '../../../src/ops/linear';
import { float32, int32 } from '../../../src/ops/run';
import { type VisionBlockWeights, visionBlock } from '../../../src/ops/vision_block';
import type { Tensor } from '../../../src/runtime/tensor';
import { attentionReference } from '../references/attention';
import { linearReference } from '../references/linear';
import { layerNormReference } from '../references/norm';
import { compare, keeper, type OpCase, once, type PreparedCase, take } from './case';
import { aroundOne, noise, rowsOf, sample } from './data';
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
  readonly columns: boolean;
  readonly dot?: boolean;
  /** Rows of a window, within which rows attend each other; absent: all rows. */
  readonly window?: number;
  readonly big?: boolean;
}

/** Everything that a vision block is called with, as numbers. */
export interface VisionBlockData {
  readonly x: Float32Array;
  readonly norm1: Float32Array;
  readonly norm1Bias: Float32Array;
  readonly qkv: Float32Array;
  readonly qkvBias: Float32Array;
  readonly out: Float32Array;
  readonly outBias: Float32Array;
  readonly norm2: Float32Array;
  readonly norm2Bias: Float32Array;
  readonly fc1: Float32Array;
  readonly fc1Bias: Float32Array;
  readonly fc2: Float32Array;
  readonly fc2Bias: Float32Array;
}

export function visionBlockData({ n, e, heads, ffn, type }: VisionBlockSizes): VisionBlockData {
  const seed = `vision ${n} ${e} ${heads} `;
  const vector = (name: string, size: number) => noise(seed + name, size, 0.3);
  return {
    x: noise(`${seed}x`, n * e),
    norm1: aroundOne(`${seed}n1`, e),
    norm1Bias: vector('b1', e),
    qkv: storedValues(`${seed}qkv`, 3 * e, e, type),
    qkvBias: vector('bq', 3 * e),
    out: storedValues(`${seed}out`, e, e, type),
    outBias: vector('bo', e),
    norm2: aroundOne(`${seed}n2`, e),
    norm2Bias: vector('b2', e),
    fc1: storedValues(`${seed}fc1`, ffn, e, type),
    fc1Bias: vector('b3', ffn),
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
  const vector = (values: Float32Array) => keep.tensor(float32(values, [values.length]));
  const matrix = (values: Float32Array, k: number) => keep.matrix(packer([values], k, s.type, options)());
  return {
    norm1: vector(data.norm1),
    norm1Bias: vector(data.norm1Bias),
    qkv: matrix(data.qkv, s.e),
    qkvBias: vector(data.qkvBias),
    out: matrix(data.out, s.e),
    outBias: vector(data.outBias),
    norm2: vector(data.norm2),
    norm2Bias: vector(data.norm2Bias),
    fc1: matrix(data.fc1, s.e),
    fc1Bias: vector(data.fc1Bias),
    fc2: matrix(data.fc2, s.ffn),
    fc2Bias: vector(data.fc2Bias),
    eps: keep.tensor(float32([EPS], [1])),
    heads: s.heads,
    activation: s.activation,
  };
}

/** The definition, for the rows that `queries` lists. Columns are right only when all are. */
export function visionBlockReference(data: VisionBlockData, s: VisionBlockSizes, queries: readonly number[]) {
  const { e, heads } = s;
  const eps = Math.fround(EPS);
  const normed = layerNormReference(data.x, data.norm1, data.norm1Bias, eps);
  const project = (x: ArrayLike<number>, part: number) =>
    linearReference(
      x,
      data.qkv.subarray(part * e * e, (part + 1) * e * e),
      e,
      data.qkvBias.subarray(part * e, (part + 1) * e),
    );
  const q = project(rowsOf(normed, e, queries), 0);
  const shape = { t: queries.length, heads, kvHeads: heads, c: e / heads };
  const attended = attentionReference(q, project(normed, 1), project(normed, 2), shape, (i, j) => {
    const { window = s.n } = s;
    return Math.floor((queries[i] ?? 0) / window) === Math.floor(j / window);
  });
  const h = linearReference(attended.out, data.out, e, data.outBias);
  const x = rowsOf(data.x, e, queries);
  for (let i = 0; i < h.length; i++) h[i] = (h[i] as number) + (x[i] as number);
  const hidden = linearReference(
    layerNormReference(h, data.norm2, data.norm2Bias, eps),
    data.fc1,
    e,
    data.fc1Bias,
    s.activation,
  );
  const y = linearReference(hidden, data.fc2, s.ffn, data.fc2Bias);
  for (let i = 0; i < y.length; i++) y[i] = (y[i] as number) + (h[i] as number);
  return { y, columns: attended.columns };
}

function visionBlockCase(sizes: VisionBlockSizes): OpCase {
  const { n, e, heads, ffn, type, activation, features, columns, dot, window, big = false } = sizes;
  const wants = features ? (columns ? ' columns' : '') : ' columns only';
  return {
    op: 'visionBlock',
    name: `${n}x${e} ${heads}x${e / heads} ffn ${ffn} ${activation}${window === undefined ? '' : ` windows of ${window}`}${wants}`,
    dtype: dot ? 'bf16 dot' : type,
    tolerance: toleranceOf(type, dot),
    big,
    prepare: () => prepare(sizes),
  };
}

const SAMPLED_ROWS = 3;

function prepare(s: VisionBlockSizes): PreparedCase {
  const keep = keeper();
  const data = visionBlockData(s);
  const weights = visionBlockWeights(data, s, keep);
  const x = keep.tensor(float32(data.x, [s.n, s.e]));
  const { features, columns, window } = s;
  const borders = Array.from({ length: s.n }, (_, i) => Math.floor(i / (window ?? s.n)) * (window ?? s.n));
  const intervals = borders.flatMap((from) => [from, Math.min(s.n, from + (window ?? s.n))]);
  const spans = window === undefined ? undefined : keep.tensor(int32(intervals, [s.n, 2]));
  const run = (): Tensor[] => visionBlock(x, weights, { features, columns, spans });
  const queries = sample(s.n, s.big ? SAMPLED_ROWS : s.n);
  const reference = once(() => visionBlockReference(data, s, queries));
  const parameters = s.features ? 4 * s.e * s.e + 2 * s.e * s.ffn : 2 * s.e * s.e;
  const bytesOf = (rows: number, k: number) => storedBytes(s.type, rows, k);
  const weightBytes = s.features
    ? bytesOf(4 * s.e, s.e) + bytesOf(s.ffn, s.e) + bytesOf(s.e, s.ffn)
    : bytesOf(2 * s.e, s.e);
  return {
    run,
    check() {
      const [y = new Float32Array(), columns = new Float32Array()] = take(run());
      const result = [compare('length of y', [y.length], [s.features ? s.n * s.e : 0])];
      if (s.features) result.push(compare('y', rowsOf(y, s.e, queries), reference().y));
      if (s.columns) result.push(compare('sum of columns', [columns.reduce((a, b) => a + b, 0)], [1]));
      if (s.columns && queries.length === s.n) result.push(compare('columns', columns, reference().columns));
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
  visionBlockCase(LARGE_BLOCK),
  visionBlockCase({ ...LARGE_BLOCK, dot: true }),
  visionBlockCase({ ...LARGE_BLOCK, type: 'int8' }),
  visionBlockCase({ ...LARGE_BLOCK, columns: true }),
  visionBlockCase({ ...LARGE_BLOCK, features: false, columns: true }),
];
