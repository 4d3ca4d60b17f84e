// A token id from each row of logits: what sampling means here, in an arithmetic that JavaScript, the processor's kernel and the
// GPU's share to the last bit, so that the same number draws the same id everywhere.
//
// In this order, which is that of transformers (`generation/logits_process.py`):
//   weight   w_i = floor(2^34 e^((x_i - max x) / temperature)), as `sampleWeight` (text/draw) computes it: an integer, so that
//            sums have no order. What has less than 2^-34 of the most probable token's probability is never drawn.
//   top-k    w_i = 0 where x_i is below the k-th highest logit; all that equal it stay.
//   top-p    the fewest tokens, highest logit first and lower id first on ties, whose weights reach top-p of all that are left.
//   draw     ids in ascending order share [0, sum w) by their weights; the one in whose share uniform · sum w falls.
// Numbers are f32: round temperature, top-p and the uniform number first (the last one down: it must stay below 1).
// Temperature 0 is greedy: the highest logit, the lowest id on ties.
// The result is -1 where no logit can be chosen: one is NaN or +∞, or none is above -∞.

import type { Tensor } from '../runtime/tensor';
import { type Draw, roundedDown } from '../text/draw';
import { int32, run } from './run';

/**
 * The ids drawn, int32 [rows].
 * @param logits f32 [rows, v], or [v] for one row; v at most `MOST_LOGITS`
 * @param draws one for each row
 */
export function sample(logits: Tensor, ...draws: readonly Draw[]): Tensor {
  const values = draws.flatMap(({ temperature, topK, topP, uniform }) => [
    topK,
    ...new Int32Array(Float32Array.of(temperature, topP, roundedDown(uniform)).buffer),
  ]);
  const sampling = int32(values, [draws.length, 4]);
  try {
    return run('SvSample', [logits, sampling]);
  } finally {
    sampling.dispose();
  }
}
