// Exact top-k on scores, and the rounding that budgets use.

import { SparseVilaError } from '../errors';

/** Round half to even, as Python, numpy and torch do. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** All indices, the largest score first; of equal scores the lower index. Throws as `topK` does. */
export function ranked(scores: Float32Array): Int32Array {
  return topK(scores, scores.length).sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
}

/** How many of n stay at a sparsity: max(1, round((1 - sparsity) n)); 0 of 0. */
export function budget(n: number, sparsity: number): number {
  return n === 0 ? 0 : Math.max(1, roundHalfEven((1 - sparsity) * n));
}

/**
 * Indices of the k largest scores, ascending; of equal scores the lower index wins.
 * @throws SparseVilaError `ERR_SCORES` when a score is NaN
 */
export function topK(scores: Float32Array, k: number): Int32Array {
  const order = Int32Array.from(scores, (score, i) => {
    if (Number.isNaN(score)) {
      throw new SparseVilaError(
        'ERR_SCORES',
        `Expected numbers to rank, received NaN at ${i} of ${scores.length}. Are the weights right?`,
      );
    }
    return i;
  });
  if (k >= scores.length) return order;
  order.sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
  return order.subarray(0, k).sort();
}
