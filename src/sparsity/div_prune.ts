// DivPrune (Alvar et al., arXiv 2503.02175): greedily selects the subset of tokens whose smallest pairwise distance is largest.
// Stage: tower (on projected tokens). Query-aware: no. Safe for later turns: yes, as far as its tokens reach.
// Difference: positions stay by default; the published code renumbers them ('compact').

import { checkOptions } from '../options';
import type { Matrix, SparsityMethod } from './method';
import { PRUNING } from './options';
import { perPlaneBudget } from './planes';
import { dot, unitRows } from './vectors';

export interface DivPruneOptions {
  /** Share of visual tokens dropped; default 0.902. */
  readonly prefillSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

/** D_ij = 1 - cos(x_i, x_j); first argmax_j min_{i != j} D_ij, then argmax_j min_{i in S} D_ij. Compares all pairs of a plane: O(n^2 d). */
export function divPrune(options: DivPruneOptions = {}): SparsityMethod {
  const given = checkOptions('divPrune', options, PRUNING);
  const { prefillSparsity = 0.902, positions = 'original' } = given;
  return {
    name: 'divprune',
    positions,
    prune: { scope: 'plane', select: perPlaneBudget(prefillSparsity, diverse) },
  };
}

function diverse(plane: { readonly tokens: number; projected(): Matrix }, kept: number): Int32Array {
  const { tokens: n } = plane;
  const x = unitRows(plane.projected());
  const distance = (i: number, j: number): number => 1 - dot(x, i, j);
  const toNearest = new Float64Array(n).fill(Number.POSITIVE_INFINITY);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < i; j++) {
      const d = distance(i, j);
      toNearest[i] = Math.min(toNearest[i] as number, d);
      toNearest[j] = Math.min(toNearest[j] as number, d);
    }
  const chosen = [farthest(toNearest)];
  const toChosen = new Float64Array(n).fill(Number.POSITIVE_INFINITY);
  while (chosen.length < kept) {
    const last = chosen.at(-1) as number;
    // Below every distance, so that a chosen token is not chosen again even if it has duplicates.
    toChosen[last] = Number.NEGATIVE_INFINITY;
    for (let j = 0; j < n; j++) toChosen[j] = Math.min(toChosen[j] as number, distance(last, j));
    chosen.push(farthest(toChosen));
  }
  return Int32Array.from(chosen).sort();
}

/** Index of the largest value; of equal values the lowest index. */
function farthest(values: Float64Array): number {
  return values.reduce((best, value, i) => (value > (values[best] as number) ? i : best), 0);
}
