// Budgets of a film's frames: a number of tokens that is shared out by weights, and the best tokens of each frame.

import { topK } from './top_k';

export interface Bounds {
  /** Fewest and most tokens of a part. */
  readonly least: number;
  readonly most: number;
}

/**
 * Whole numbers that sum to `total`, one for each weight, in proportion to the weights within the bounds: floor(share), and one more for the
 * largest remainders, of equal ones the first. What a part cannot take goes to the others. Weights that are all 0 count as equal.
 * @param total from weights.length · least to weights.length · most
 */
export function shareOut(total: number, weights: readonly number[], bounds: Bounds): number[] {
  const shares = boundedShares(total, weights.some((w) => w > 0) ? weights : weights.map(() => 1), bounds);
  const counts = shares.map((share) => Math.floor(share + EPSILON));
  const order = shares
    .map((share, i) => ({ i, rest: Math.round((share - (counts[i] as number)) / EPSILON) }))
    .filter(({ i }) => (counts[i] as number) < bounds.most)
    .sort((a, b) => b.rest - a.rest || a.i - b.i);
  const left = total - counts.reduce((sum, count) => sum + count, 0);
  for (const { i } of order.slice(0, left)) counts[i] = (counts[i] as number) + 1;
  return counts;
}

/** Rounding errors of shares are below this. */
const EPSILON = 1e-6;

/** clamp(scale · weight, least, most) with the scale at which the sum is `total`; where no scale suffices, parts of weight 0 take the rest. */
function boundedShares(total: number, weights: readonly number[], { least, most }: Bounds): number[] {
  const sharesAt = (scale: number): number[] => weights.map((w) => Math.min(most, Math.max(least, scale * w)));
  const sumAt = (scale: number): number => sharesAt(scale).reduce((sum, share) => sum + share, 0);
  const smallest = weights.reduce((min, w) => (w > 0 ? Math.min(min, w) : min), Number.POSITIVE_INFINITY);
  let [low, high] = [0, most / smallest];
  const missing = total - sumAt(high);
  if (missing > 0) {
    const zeros = weights.filter((w) => w === 0).length;
    return sharesAt(high).map((share, i) => (weights[i] === 0 ? share + missing / zeros : share));
  }
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (sumAt(middle) > total) high = middle;
    else low = middle;
  }
  return sharesAt(low);
}

/** The `counts[t]` best-scored tokens of each frame t, ascending; all frames have as many tokens. */
export function topOfFrames(scores: Float32Array, counts: readonly number[]): Int32Array {
  const n = scores.length / counts.length;
  const kept = counts.map((k, t) => topK(scores.subarray(t * n, (t + 1) * n), k).map((token) => token + t * n));
  const all = new Int32Array(counts.reduce((sum, k) => sum + k, 0));
  let at = 0;
  for (const own of kept) {
    all.set(own, at);
    at += own.length;
  }
  return all;
}

/** exp(x / temperature), divided by its sum. */
export const softmax = (values: readonly number[], temperature: number): number[] => {
  const most = values.reduce((max, value) => Math.max(max, value), Number.NEGATIVE_INFINITY);
  const powers = values.map((value) => Math.exp((value - most) / temperature));
  const sum = powers.reduce((all, power) => all + power, 0);
  return powers.map((power) => power / sum);
};
