// Exact top-k by radix selection, and the rounding of budgets.

import { types } from 'node:util';
import { SparseVilaError } from '../errors';
import { type Check, checkValue, NATURAL } from '../options';

const UNIT: Check = {
  expected: 'a share from 0 to 1',
  accepts: (value) => typeof value === 'number' && value >= 0 && value <= 1,
};
const SCORES: Check = { expected: 'a Float32Array', accepts: types.isFloat32Array };

/** Rounds half to even, as Python, numpy and torch do. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** All indices in descending order of their scores; of equal scores the lower index comes first. Throws as `topK` does. */
export function ranked(scores: Float32Array): Int32Array {
  return topK(scores, scores.length).sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
}

/** Number of n tokens kept at a sparsity: max(1, round((1 - sparsity) n)); 0 if n is 0. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function budget(n: number, sparsity: number): number {
  checkValue('budget', 'n', n, NATURAL);
  checkValue('budget', 'sparsity', sparsity, UNIT);
  return n === 0 ? 0 : Math.max(1, roundHalfEven((1 - sparsity) * n));
}

/**
 * Indices of the k largest scores, ascending; of equal scores the lower index wins. O(n) for any scores.
 * @throws SparseVilaError `ERR_SCORES` if a score is NaN; `ERR_OPTION_INVALID`
 */
export function topK(scores: Float32Array, k: number): Int32Array {
  checkValue('topK', 'scores', scores, SCORES);
  checkValue('topK', 'k', k, NATURAL);
  const keys = sortableKeys(scores);
  if (k >= scores.length) return Int32Array.from(keys.keys());
  const chosen = new Int32Array(k);
  if (k === 0) return chosen;
  const threshold = kthLargest(keys, k);
  let ties = threshold.equal;
  let at = 0;
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i] as number;
    if (key > threshold.key || (key === threshold.key && ties-- > 0)) chosen[at++] = i;
  }
  return chosen;
}

/** Maps f32 to uint32 in the same order: flips the sign bit of positive numbers and all bits of negative ones; -0 equals 0. */
function sortableKeys(scores: Float32Array): Uint32Array {
  const keys = new Uint32Array(scores.slice().buffer);
  for (let i = 0; i < keys.length; i++) {
    if (Number.isNaN(scores[i])) {
      throw new SparseVilaError(
        'ERR_SCORES',
        `Expected numbers to rank, received NaN at ${i} of ${scores.length}. Are the weights right?`,
      );
    }
    const bits = keys[i] as number;
    keys[i] = bits > 0x80000000 ? ~bits : bits | 0x80000000;
  }
  return keys;
}

/** The k-th largest key, found byte by byte from the most significant one, and how many keys equal to it are among the k largest. */
function kthLargest(keys: Uint32Array, k: number): { key: number; equal: number } {
  const counts = new Uint32Array(256);
  let equal = k;
  let prefix = 0;
  for (let shift = 24; shift >= 0; shift -= 8) {
    counts.fill(0);
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as number;
      if (shift === 24 || key >>> (shift + 8) === prefix) {
        const byte = (key >>> shift) & 255;
        counts[byte] = (counts[byte] as number) + 1;
      }
    }
    let byte = 255;
    while ((counts[byte] as number) < equal) equal -= counts[byte--] as number;
    prefix = prefix * 256 + byte;
  }
  return { key: prefix, equal };
}
