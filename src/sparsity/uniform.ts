// Baseline: every k-th token and row, independently of the picture and the question.
// Query-aware: no. Safe for later turns: yes. Source: none.

import { checkOptions } from '../options';
import type { SparsityMethod } from './method';
import { PRUNING, SHARE } from './options';
import { perPlane } from './planes';
import { budget, topK } from './top_k';
import { without } from './vectors';

export interface UniformOptions {
  /** Share of visual tokens dropped after the tower; default 0. */
  readonly prefillSparsity?: number;
  /** Share of the retained visual rows that decoding leaves out; default 0. */
  readonly decodeSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

export function uniform(options: UniformOptions = {}): SparsityMethod {
  const given = checkOptions('uniform', options, { ...PRUNING, decodeSparsity: SHARE });
  const { prefillSparsity = 0, decodeSparsity = 0, positions = 'original' } = given;
  return {
    name: 'uniform',
    positions,
    prune: { scope: 'plane', select: perPlane(({ tokens }) => strided(tokens, budget(tokens, prefillSparsity))) },
    retrieve: { select: ({ length }) => strided(length, budget(length, decodeSparsity)) },
  };
}

/** k of 0 .. n - 1, ascending, each in the middle of its interval: floor((i + 1/2) n / k). */
export function strided(n: number, k: number): Int32Array {
  return Int32Array.from({ length: k }, (_, i) => Math.floor(((i + 0.5) * n) / k));
}

/** The `top` largest scores, and `spread` of the other indices, evenly spread; ascending. */
export function topAndSpread(scores: Float32Array, top: number, spread: number): Int32Array {
  const best = topK(scores, top);
  const others = without(scores.length, best);
  return Int32Array.from([...best, ...strided(others.length, spread).map((i) => others[i] as number)]).sort();
}
