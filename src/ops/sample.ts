// One token id from a row of logits: what sampling means here, in an arithmetic that JavaScript, the processor's kernel and the
// GPU's share to the last bit, so that the same number draws the same id everywhere.
//
// In this order, which is that of transformers (`generation/logits_process.py`):
//   weight   w_i = floor(2^34 e^((x_i - max x) / temperature)), as `sampleWeight` computes it: an integer, so that sums have no
//            order. What has less than 2^-34 of the most probable token's probability is never drawn.
//   top-k    w_i = 0 where x_i is below the k-th highest logit; all that equal it stay.
//   top-p    the fewest tokens, highest logit first and lower id first on ties, whose weights reach top-p of all that are left.
//   draw     ids in ascending order share [0, sum w) by their weights; the one in whose share uniform · sum w falls.
// Numbers are f32: round temperature, top-p and the uniform number first (the last one down: it must stay below 1).
// Temperature 0 is greedy: the highest logit, the lowest id on ties.
// The result is -1 where no logit can be chosen: one is NaN or +∞, or none is above -∞.

import type { Tensor } from '@tensorflow/tfjs-core';
import { run, withInt32 } from './run';

export interface Draw {
  /** At least 0; 0 is greedy. */
  readonly temperature: number;
  /** 0 keeps all. */
  readonly topK: number;
  /** In (0, 1]; 1 keeps all. */
  readonly topP: number;
  /** In [0, 1): the one random number of the draw. */
  readonly uniform: number;
}

/** Most logits of a row: the sum of their weights stays below 2^53. */
export const MOST_LOGITS = 2 ** 19;

/**
 * The id drawn, int32 [1].
 * @param logits f32 [v] or [1, v], v at most `MOST_LOGITS`
 */
export function sample(logits: Tensor, { temperature, topK, topP, uniform }: Draw): Tensor {
  const bits = new Int32Array(Float32Array.of(temperature, topP, roundedDown(uniform)).buffer);
  return withInt32([topK, ...bits], (sampling) => run('SvSample', [logits, sampling]));
}

/** The multiple of 2^-24 at or below u ∈ [0, 1), which f32 holds exactly. */
export function roundedDown(u: number): number {
  return Math.floor(u * 2 ** 24) / 2 ** 24;
}

const f32 = Math.fround;
const [LOG2_E, LN2_HIGH, LN2_LOW] = [f32(Math.LOG2E), 0.693359375, f32(-2.1219444e-4)];
const [C5, C4, C3] = [f32(1.98756915e-4), f32(1.3981999507e-3), f32(8.3334519073e-3)];
const [C2, C1, C0] = [f32(4.1665795894e-2), f32(1.6666665459e-1), f32(5.0000001201e-1)];
const SHIFT = 1.5 * 2 ** 23; // adding and subtracting it rounds an f32 to an integer, ties to even

/**
 * floor(2^34 e^x), x = (score - highest) / temperature ≤ 0, by the polynomial of Cephes' expf in f32 steps: an integer from 0 to
 * 2^34, off by 2^-22 of itself at most. All arguments are f32 values.
 */
export function sampleWeight(score: number, highest: number, temperature: number): number {
  const x = f32(f32(score - highest) / temperature);
  if (!(x >= f32(-23.6))) return 0; // 2^34 e^-23.6 < 1
  const n = f32(f32(f32(x * LOG2_E) + SHIFT) - SHIFT);
  const r = f32(f32(x - f32(n * LN2_HIGH)) - f32(n * LN2_LOW));
  let p = f32(f32(C5 * r) + C4);
  p = f32(f32(p * r) + C3);
  p = f32(f32(p * r) + C2);
  p = f32(f32(p * r) + C1);
  p = f32(f32(p * r) + C0);
  p = f32(f32(f32(p * f32(r * r)) + r) + 1);
  return Math.floor(p * 2 ** (34 + n));
}

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
