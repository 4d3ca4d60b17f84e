// Samples a token id from each row of logits. The arithmetic gives equal bits in JavaScript, in the CPU kernel and in the GPU kernel, so that
// the same random number draws the same id everywhere.
//
// The steps are in the order of transformers (`generation/logits_process.py`):
//   weight   w_i = floor(2^34 e^((x_i - max x) / temperature)), as `sampleWeight` (text/draw) computes it: an integer, so that
//            the order of a sum does not matter. A token below 2^-34 of the highest probability is never drawn.
//   top-k    w_i = 0 if x_i is below the k-th highest logit; all equal to it stay.
//   top-p    the fewest tokens, highest logit first and lower id first on ties, whose weights reach top-p of the remaining sum.
//   draw     ids in ascending order divide [0, sum w) by their weights; the id whose interval contains uniform · sum w.
// Numbers are f32: round temperature, top-p and the uniform number first (the last one down: it must stay below 1).
// Temperature 0 is greedy: the highest logit, the lowest id on ties.
// The result is -1 if no logit can be chosen: one is NaN or +∞, or none is above -∞.

import type { Tensor } from '../runtime/tensor';
import { type Draw, roundedDown } from '../text/draw';
import { int32, run } from './run';

/**
 * Draws ids, int32 [rows].
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
