// HoloV (Zou et al., arXiv 2510.02912): divides the tokens into runs and the budget among the runs by their attention and diversity, so that
// the kept tokens do not gather in one place; in a run keeps the most attended ones.
// Stage: tower. Query-aware: no. Safe for later turns: yes, as far as its tokens reach.
// Differences from the published code: the variance is scaled over the plane (a scale per run cancels it from the run's share) and leaves
// the diagonal out; what a full run cannot take goes to other runs, and not to rows of zeros; tokens stay in raster order.

import { COUNT, checkOptions } from '../options';
import { allocate } from './allocate';
import type { SparsityMethod, TowerView } from './method';
import { LAYER, POSITIONS, SHARE } from './options';
import { perPlane } from './planes';
import { budget, topK } from './top_k';
import { dot, unitRows } from './vectors';

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
  const given = checkOptions('holoV', options, {
    prefillSparsity: SHARE,
    runs: COUNT,
    layer: LAYER,
    positions: POSITIONS,
  });
  const { prefillSparsity = 8 / 9, runs = 16, layer = -2, positions = 'original' } = given;
  return {
    name: 'holov',
    positions,
    prune: {
      taps: { salience: [layer] },
      scope: 'plane',
      select: perPlane((plane) => holistic(plane, budget(plane.tokens, prefillSparsity), runs)),
    },
  };
}

function holistic(plane: TowerView, kept: number, most: number): Int32Array {
  const { tokens: n } = plane;
  if (kept === n) return Int32Array.from({ length: n }, (_, i) => i);
  const count = Math.min(most, n);
  const size = (run: number): number => Math.floor(n / count) + Number(run < n % count);
  let first = 0;
  const runs = Array.from({ length: count }, (_, run) => Array.from({ length: size(run) }, () => first++));
  const unit = unitRows(plane.projected());
  const attention = Array.from(plane.salience());
  const variances = runs.flatMap((run) =>
    run.map((i) => variance(run.filter((j) => j !== i).map((j) => dot(unit, i, j)))),
  );
  const [a, v] = [mean(attention), mean(variances)];
  const score = (i: number): number =>
    (a > 0 ? (attention[i] as number) / a : 0) + (v > 0 ? (DIVERSITY * (variances[i] as number)) / v : 0);
  const weights = runs.map((run) => mean(run.map(score)));
  const counts = allocate(
    weights,
    runs.map((run) => run.length),
    kept,
  );
  const chosen = runs.map((run, at) => {
    const own = topK(
      Float32Array.from(run, (i) => attention[i] as number),
      counts[at] as number,
    );
    return Array.from(own, (i) => run[i] as number);
  });
  return Int32Array.from(chosen.flat());
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

function variance(values: readonly number[]): number {
  const middle = mean(values);
  return mean(values.map((value) => (value - middle) ** 2));
}
