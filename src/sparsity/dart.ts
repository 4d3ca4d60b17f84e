// DART (Wen et al., arXiv 2502.11494): keeps a few pivots, and for each of them the tokens that duplicate it least.
// Stage: tower (the embedding form). Query-aware: no. Safe for later turns: yes, as far as its tokens reach.
// Differences: pivots are chosen by the L1 norm of the input embedding, as in TensorRT Edge-LLM, and not of the keys of a decoder layer; no
// token of the text is a pivot.

import { COUNT, checkOptions } from '../options';
import type { SparsityMethod, TowerView } from './method';
import { PRUNING } from './options';
import { perPlaneBudget } from './planes';
import { topK } from './top_k';
import { dot, unitRows } from './vectors';

export interface DartOptions {
  /** Share of visual tokens dropped; default 7/9. */
  readonly prefillSparsity?: number;
  /** Number of pivots in each plane; default 4. */
  readonly pivots?: number;
  readonly positions?: 'original' | 'compact';
}

/** Pivots: top p of |x_i|_1. Each adds its part of the other T - p: the tokens of the smallest cosine with it that are not taken yet. */
export function dart(options: DartOptions = {}): SparsityMethod {
  const given = checkOptions('dart', options, { ...PRUNING, pivots: COUNT });
  const { prefillSparsity = 7 / 9, pivots = 4, positions = 'original' } = given;
  return {
    name: 'dart',
    positions,
    prune: {
      scope: 'plane',
      select: perPlaneBudget(prefillSparsity, (plane, kept) => leastDuplicated(plane, kept, pivots)),
    },
  };
}

function leastDuplicated(plane: TowerView, kept: number, most: number): Int32Array {
  const { tokens: n } = plane;
  const x = plane.projected();
  const norms = Float32Array.from({ length: n }, (_, i) =>
    x.data.subarray(i * x.width, (i + 1) * x.width).reduce((sum, value) => sum + Math.abs(value), 0),
  );
  const unit = unitRows(x);
  const pivots = topK(norms, Math.min(most, kept));
  const taken = new Set<number>(pivots);
  const others = kept - pivots.length;
  for (const [i, pivot] of pivots.entries()) {
    const part = Math.floor(((i + 1) * others) / pivots.length) - Math.floor((i * others) / pivots.length);
    const scores = Float32Array.from({ length: n }, (_, token) =>
      taken.has(token) ? Number.NEGATIVE_INFINITY : -dot(unit, pivot, token),
    );
    for (const token of topK(scores, part)) taken.add(token);
  }
  return Int32Array.from(taken).sort();
}
