// One pre-norm vision transformer block (SigLIP, CLIP, Qwen2.5-VL, InternViT) as a single op.

import type { Tensor } from '../runtime/tensor';
import { ACTIVATION_CODE, type Activation } from './linear';
import { noFloat32, noInt32, runMany, withInt32 } from './run';
import type { VectorRecord } from './vectors';
import type { PackedMatrix } from './weights';

/**
 * The vectors of a block, in the order of its record. A norm is LayerNorm if it has a bias, else RMSNorm. `qNorm` and `kNorm`: RMSNorm over
 * all heads concatenated. `scale1` and `scale2`: layer scale, of attention and of the MLP. A gated fc1 has a bias [2 m], the gate's first.
 */
export const VISION_VECTORS = [
  ...(['norm1', 'norm1Bias', 'qkvBias', 'qNorm', 'kNorm', 'outBias', 'scale1'] as const),
  ...(['norm2', 'norm2Bias', 'fc1Bias', 'fc2Bias', 'scale2', 'eps'] as const),
] as const;

export interface VisionBlockWeights {
  /** `VISION_VECTORS`; norm1, norm2 and eps are required. */
  readonly vectors: VectorRecord;
  /** q, k, v stacked: [3 e, e] */
  readonly qkv: PackedMatrix;
  readonly out: PackedMatrix;
  /** Plain, or packed with `gated`. */
  readonly fc1: PackedMatrix;
  readonly fc2: PackedMatrix;
  readonly heads: number;
  readonly activation: Activation;
}

export interface VisionBlockWants {
  /** Whether to compute y. */
  readonly features: boolean;
  /** The column mean of the softmax over heads and rows, or, with `first`, over heads in the first row alone, which is a class row. */
  readonly columns: boolean | 'first';
  readonly keys?: boolean;
  /** f32 [2, n, c / 2]: rotary embedding, as `ropeTable` makes it; absent: none. */
  readonly table?: Tensor | undefined;
  /** int32 [n, 2] (from, to): row i attends rows from .. to - 1; absent: all. */
  readonly spans?: Tensor | undefined;
}

/**
 * h = x + scale1 * out(attend(rope(qkv(norm1(x))))), y = h + scale2 * fc2(act(fc1(norm2(h)))) over n patches; a gated fc1 gives act(gate(n)) up(n).
 * @param x f32 [n, e]
 * @returns [y f32 [n, e] or [0, e], columns f32 [n] or [0], keys f32 [n, e] or [0, e]: before their norm and rotary embedding]
 */
export function visionBlock(x: Tensor, w: VisionBlockWeights, want: VisionBlockWants): [Tensor, Tensor, Tensor] {
  const { features, columns, keys = false, table, spans = noInt32() } = want;
  const wanted = [Number(features), columns === 'first' ? 2 : Number(columns), Number(keys)];
  return withInt32([w.vectors.present, w.heads, ACTIVATION_CODE[w.activation], ...wanted], (options) => {
    const matrices = [w.qkv, w.out, w.fc1, w.fc2].map(({ tensor }) => tensor);
    return runMany('SvVisionBlock', [x, table ?? noFloat32(), spans, w.vectors.tensor, options, ...matrices], 3);
  }) as [Tensor, Tensor, Tensor];
}
