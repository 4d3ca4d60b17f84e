// Budgets of a film's frames: a number of tokens that is shared out by weights, and the best tokens of each frame.

import type { TowerView } from './method';
import { budget, topK } from './top_k';

/** Number of tokens that are kept of a film: one of each frame at least. */
export function filmBudget({ t, h, w }: TowerView['grid'], sparsity: number): number {
  return Math.max(t, budget(t * h * w, sparsity));
}

export interface Bounds {
  /** Fewest tokens of a part, and most: one number for all parts, or one for each. */
  readonly least: number;
  readonly most: number | readonly number[];
  /** Which parts get one more where rounding leaves some: those of the largest remainders (the default), or of the largest weights; of equal ones the first. */
  readonly rest?: 'remainder' | 'weight';
}

/**
 * Whole numbers that sum to `total`, one for each weight, in proportion to the weights within the bounds: floor(share), and one more for some parts.
 * What a part cannot take goes to the others. Weights that are all 0 count as equal.
 * @param total from the sum of the least to the sum of the most
 */
export function shareOut(total: number, weights: readonly number[], { least, most, rest }: Bounds): number[] {
  const caps = weights.map((_, i) => (typeof most === 'number' ? most : (most[i] as number)));
  const shares = boundedShares(total, weights, least, caps);
  const counts = shares.map((share) => Math.floor(share + EPSILON));
  const remainder = (i: number): number => Math.round(((shares[i] as number) - (counts[i] as number)) / EPSILON);
  const rank = rest === 'weight' ? (i: number): number => weights[i] as number : remainder;
  const order = [...counts.keys()]
    .filter((i) => (counts[i] as number) < (caps[i] as number))
    .sort((a, b) => rank(b) - rank(a) || a - b);
  const left = total - counts.reduce((sum, count) => sum + count, 0);
  for (const i of order.slice(0, left)) counts[i] = (counts[i] as number) + 1;
  return counts;
}

/** Rounding errors of shares are below this. */
const EPSILON = 1e-6;

/** clamp(scale · weight, least, cap) with the scale at which the sum is `total`; where no scale suffices, parts of weight 0 take the rest equally. */
function boundedShares(
  total: number,
  weights: readonly number[],
  least: number,
  caps: readonly number[],
): readonly number[] {
  const sharesAt = (scale: number): number[] =>
    weights.map((w, i) => Math.min(caps[i] as number, Math.max(least, scale * w)));
  const sumOf = (shares: readonly number[]): number => shares.reduce((sum, share) => sum + share, 0);
  const smallest = weights.reduce((min, w) => (w > 0 ? Math.min(min, w) : min), Number.POSITIVE_INFINITY);
  let [low, high] = [0, caps.reduce((a, b) => Math.max(a, b), 0) / smallest];
  const full = sharesAt(high);
  if (total - sumOf(full) > EPSILON) {
    const own = full.map((share, i) => (weights[i] === 0 ? 0 : share));
    const free = caps.map((cap, i) => (weights[i] === 0 ? cap : 0));
    const equal = boundedShares(
      total - sumOf(own),
      weights.map(() => 1),
      least,
      free,
    );
    return own.map((share, i) => share + (equal[i] as number));
  }
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (sumOf(sharesAt(middle)) > total) high = middle;
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
