// One pre-norm vision transformer block (SigLIP, CLIP) as a single op.

import type { Tensor } from '../runtime/tensor';
import { ACTIVATION_CODE, type Activation } from './linear';
import { noInt32, runTwo, withInt32 } from './run';
import type { PackedMatrix } from './weights';

export interface VisionBlockWeights {
  readonly norm1: Tensor;
  readonly norm1Bias: Tensor;
  /** q, k, v stacked: [3 e, e] */
  readonly qkv: PackedMatrix;
  readonly qkvBias: Tensor;
  readonly out: PackedMatrix;
  readonly outBias: Tensor;
  readonly norm2: Tensor;
  readonly norm2Bias: Tensor;
  readonly fc1: PackedMatrix;
  readonly fc1Bias: Tensor;
  readonly fc2: PackedMatrix;
  readonly fc2Bias: Tensor;
  /** f32 [1] */
  readonly eps: Tensor;
  readonly heads: number;
  readonly activation: Activation;
}

/**
 * h = x + out(attend(qkv(norm1(x)))), y = h + fc2(act(fc1(norm2(h)))) for the n patches of one image.
 * @param x f32 [n, e]
 * @param want features: compute y; columns: the column mean of the softmax over heads and rows
 * @param want.spans int32 [n, 2] (from, to): row i attends rows from .. to - 1; absent: all
 * @returns [y f32 [n, e] or [0, e], columns f32 [n] or [0]]
 */
export function visionBlock(
  x: Tensor,
  w: VisionBlockWeights,
  want: { features: boolean; columns: boolean; spans?: Tensor | undefined },
): [Tensor, Tensor] {
  const config = [w.heads, ACTIVATION_CODE[w.activation], Number(want.features), Number(want.columns)];
  return withInt32(config, (c) =>
    runTwo('SvVisionBlock', [
      x,
      w.norm1,
      w.norm1Bias,
      w.qkv.tensor,
      w.qkvBias,
      w.out.tensor,
      w.outBias,
      w.norm2,
      w.norm2Bias,
      w.fc1.tensor,
      w.fc1Bias,
      w.fc2.tensor,
      w.fc2Bias,
      w.eps,
      c,
      want.spans ?? noInt32(),
    ]),
  );
}
