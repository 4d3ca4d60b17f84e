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
import { type Draw, roundedDown, sampleWeight } from '../text/draw';
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

const f32 = Math.fround;

/** The definition, with sorting. */
export function sampleReference(logits: Float32Array, { temperature, topK, topP, uniform }: Draw): number {
  const ids = [...logits.keys()];
  const at = (id: number): number => logits[id] as number;
  if (logits.some((x) => !(x < Number.POSITIVE_INFINITY))) return -1;
  const order = ids.sort((a, b) => at(b) - at(a) || a - b).filter((id) => at(id) > Number.NEGATIVE_INFINITY);
  const [best = -1] = order;
  if (best < 0 || f32(temperature) === 0) return best;
  const kth = topK > 0 ? at(order[Math.min(topK, order.length) - 1] as number) : Number.NEGATIVE_INFINITY;
  const weight = Float64Array.from(logits, (x) => (x < kth ? 0 : sampleWeight(x, at(best), f32(temperature))));
  const least = f32(topP) * weight.reduce((sum, w) => sum + w, 0);
  let mass = 0;
  const kept = order.filter((id) => {
    if (mass >= least) return false;
    mass += weight[id] as number;
    return true;
  });
  const target = roundedDown(uniform) * mass;
  let through = 0;
  const drawn = kept
    .sort((a, b) => a - b)
    .find((id) => {
      through += weight[id] as number;
      return target < through;
    });
  return drawn ?? -1;
}
