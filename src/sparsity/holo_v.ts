// HoloV (Zou et al., arXiv 2510.02912): divides the tokens into runs and the budget among the runs by their attention and diversity, so that
// the kept tokens do not gather in one place; in a run keeps the most attended ones.
// Stage: tower. Query-aware: no. Safe for later turns: yes, as far as its tokens reach.
// Differences from the published code: the variance is scaled over the plane (a scale per run cancels it from the run's share) and leaves
// the diagonal out; what a full run cannot take goes to other runs, and not to rows of zeros; tokens stay in raster order.

import { COUNT, checkOptions } from '../options';
import type { SparsityMethod, TowerView } from './method';
import { LAYER, PRUNING } from './options';
import { perPlaneBudget } from './planes';
import { shareOut } from './shares';
import { topK } from './top_k';
import { dot, mean, unitRows, variance } from './vectors';

export interface HoloVOptions {
  /** Share of visual tokens dropped; default 8/9. */
  readonly prefillSparsity?: number;
  /** Number of runs in each plane; default 16. */
  readonly runs?: number;
  /** Tower layer of the attention; default -2. */
  readonly layer?: number;
  readonly positions?: 'original' | 'compact';
}

const DIVERSITY = 0.09;

/** score_i = a_i / mean(a) + 0.09 v_i / mean(v), v_i the variance over j of cos(x_i, x_j) in the run; the share of a run is its mean score. */
export function holoV(options: HoloVOptions = {}): SparsityMethod {
  const given = checkOptions('holoV', options, { ...PRUNING, runs: COUNT, layer: LAYER });
  const { prefillSparsity = 8 / 9, runs = 16, layer = -2, positions = 'original' } = given;
  return {
    name: 'holov',
    positions,
    prune: {
      taps: { salience: [layer] },
      scope: 'plane',
      select: perPlaneBudget(prefillSparsity, (plane, kept) => holistic(plane, kept, runs)),
    },
  };
}

function holistic(plane: TowerView, kept: number, most: number): Int32Array {
  const { tokens: n } = plane;
  const count = Math.min(most, n);
  const size = (run: number): number => Math.floor(n / count) + Number(run < n % count);
  let first = 0;
  const runs = Array.from({ length: count }, (_, run) => Array.from({ length: size(run) }, () => first++));
  const unit = unitRows(plane.projected());
  const attention = plane.salience();
  const variances = runs.flatMap((run) =>
    run.map((i) => variance(run.filter((j) => j !== i).map((j) => dot(unit, i, j)))),
  );
  const [a, v] = [mean(attention), mean(variances)];
  const score = (i: number): number =>
    (a > 0 ? (attention[i] as number) / a : 0) + (v > 0 ? (DIVERSITY * (variances[i] as number)) / v : 0);
  const weights = runs.map((run) => mean(run.map(score)));
  const counts = shareOut(kept, weights, { least: 0, most: runs.map(({ length }) => length), rest: 'weight' });
  const chosen = runs.map(([from = 0, ...others], at) => {
    const own = attention.subarray(from, from + others.length + 1);
    return Array.from(topK(own, counts[at] as number), (i) => from + i);
  });
  return Int32Array.from(chosen.flat());
}
