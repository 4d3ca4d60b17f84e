// MMTok, vision term (Dong et al., arXiv 2508.18264): greedily selects the tokens that cover all tokens of the picture best.
// Stage: tower (on projected tokens). Query-aware: no. Safe for later turns: yes, as far as its tokens reach.
// Difference: the text term, which covers the question's words, is left out, so that later questions find the same tokens.

import { checkOptions } from '../options';
import type { SparsityMethod, TowerView } from './method';
import { PRUNING } from './options';
import { perPlaneBudget } from './planes';
import { dot, unitRows } from './vectors';

export interface MmTokOptions {
  /** Share of visual tokens dropped; default 8/9. */
  readonly prefillSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

const TEMPERATURE = 0.2;

/** Q_ij = softmax_j(cos(x_i, x_j) / 0.2) / n; adds argmax_j of sum_i max(0, Q_ij - max of Q_ik over chosen k), T times. Holds n x n numbers. */
export function mmTok(options: MmTokOptions = {}): SparsityMethod {
  const given = checkOptions('mmTok', options, PRUNING);
  const { prefillSparsity = 8 / 9, positions = 'original' } = given;
  return {
    name: 'mmtok',
    positions,
    prune: { scope: 'plane', select: perPlaneBudget(prefillSparsity, covering) },
  };
}

function covering(plane: TowerView, kept: number): Int32Array {
  const { tokens: n } = plane;
  const unit = unitRows(plane.projected());
  const covers = new Float32Array(n * n);
  for (let i = 0; i < n; i++) {
    const row = covers.subarray(i * n, (i + 1) * n);
    // Cosines are at most 1, so that no power overflows.
    for (let j = 0; j < n; j++) row[j] = Math.exp((dot(unit, i, j) - 1) / TEMPERATURE);
    const sum = row.reduce((a, b) => a + b);
    for (let j = 0; j < n; j++) row[j] = (row[j] as number) / sum / n;
  }
  const best = new Float32Array(n);
  const chosen = new Set<number>();
  while (chosen.size < kept) {
    const gains = new Float64Array(n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++)
        gains[j] = (gains[j] as number) + Math.max(0, (covers[i * n + j] as number) - (best[i] as number));
    for (const j of chosen) gains[j] = -1;
    const next = gains.reduce((top, gain, j) => (gain > (gains[top] as number) ? j : top), 0);
    chosen.add(next);
    for (let i = 0; i < n; i++) best[i] = Math.max(best[i] as number, covers[i * n + next] as number);
  }
  return Int32Array.from(chosen).sort();
}
