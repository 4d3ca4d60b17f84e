// EVS, efficient video sampling (Bagrov et al., arXiv 2510.14624; as vLLM implements it, on tokens where the paper compares pixels): keeps the
// tokens of a film that differ most from those at the same place of the frame before.
// Stage: tower (on projected tokens). Query-aware: no. Safe for later turns: yes, for what changed. Positions stay. Pictures stay whole.
// Difference: the budget is rounded half to even, where vLLM's code truncates.

import { checkOptions } from '../options';
import type { SparsityMethod, TowerView } from './method';
import { PRUNING } from './options';
import { perGridBudget } from './planes';
import { budget, topK } from './top_k';
import { dot, unitRows } from './vectors';

export interface EvsOptions {
  /** Share of a film's visual tokens dropped; the first frame stays whole in any case. Default 0.8. */
  readonly prefillSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

/** d[t, i] = 1 - cos(x[t, i], x[t - 1, i]), and more than any for t = 0; the top max(n, round((1 - q) t n)) of a film of t frames of n tokens. */
export function evs(options: EvsOptions = {}): SparsityMethod {
  const given = checkOptions('evs', options, PRUNING);
  const { prefillSparsity = 0.8, positions = 'original' } = given;
  return {
    name: 'evs',
    positions,
    prune: { select: perGridBudget((grid) => evsBudget(grid, prefillSparsity), changed) },
  };
}

/** Number of tokens that are kept of a film: those of a frame at least. */
export function evsBudget({ t, h, w }: TowerView['grid'], sparsity: number): number {
  return Math.max(h * w, budget(t * h * w, sparsity));
}

function changed(film: Pick<TowerView, 'tokens' | 'grid' | 'projected'>, kept: number): Int32Array {
  const { h, w } = film.grid;
  const x = unitRows(film.projected());
  return topK(
    Float32Array.from({ length: film.tokens }, (_, i) => (i < h * w ? 255 : 1 - dot(x, i, i - h * w))),
    kept,
  );
}
