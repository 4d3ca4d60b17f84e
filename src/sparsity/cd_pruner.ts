// CDPruner (Zhang et al., arXiv 2506.10967): selects a diverse set of tokens among those that are relevant to the question, by a determinantal
// point process whose kernel is conditioned on the relevance.
// Stage: tower (on projected tokens). Query-aware: yes. Safe for later turns: no, tokens that the first question does not need are lost.
// Differences: the text is the question's rows of the embedding table, as in OpenVINO GenAI, and not CLIP's text tower; the minus of the
// relevance is the published code's.

import { checkOptions } from '../options';
import type { Matrix, SparsityMethod, TowerView } from './method';
import { PRUNING } from './options';
import { perPlaneBudget } from './planes';
import { addRow, dot, unitRows } from './vectors';

export interface CdPrunerOptions {
  /** Share of visual tokens dropped; default 8/9. */
  readonly prefillSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

/** r_i = minmax(mean over words t of -cos(x_i, t)), L_ij = r_i cos(x_i, x_j) r_j; greedily maximizes det L_S over T tokens. */
export function cdPruner(options: CdPrunerOptions = {}): SparsityMethod {
  const given = checkOptions('cdPruner', options, PRUNING);
  const { prefillSparsity = 8 / 9, positions = 'original' } = given;
  return {
    name: 'cdpruner',
    positions,
    prune: { question: true, scope: 'plane', select: perPlaneBudget(prefillSparsity, conditional) },
  };
}

function conditional(plane: TowerView, kept: number): Int32Array {
  const { tokens: n } = plane;
  const x = unitRows(plane.projected());
  const r = relevance(x, unitRows(plane.question()));
  // What each token adds to the determinant, given those that are chosen. Source: fast greedy MAP, Chen et al., arXiv 1709.05135.
  const added = Float64Array.from(r, (own, i) => own * own * dot(x, i, i));
  const rows: Float64Array[] = [];
  const chosen: number[] = [];
  for (;;) {
    const next = added.reduce((best, gain, i) => (gain > (added[best] as number) ? i : best), 0);
    const root = Math.sqrt(added[next] as number);
    chosen.push(next);
    if (chosen.length === kept) return Int32Array.from(chosen).sort();
    // Where the chosen tokens span all others, the rest is rounding, and is not divided by.
    const row = Float64Array.from({ length: root < 1e-6 ? 0 : n }, (_, i) => {
      const known = rows.reduce((sum, one) => sum + (one[next] as number) * (one[i] as number), 0);
      return ((r[next] as number) * dot(x, next, i) * (r[i] as number) - known) / root;
    });
    for (const [i, value] of row.entries()) added[i] = Math.max(0, (added[i] as number) - value * value);
    if (row.length > 0) rows.push(row);
    for (const i of chosen) added[i] = Number.NEGATIVE_INFINITY;
  }
}

/** Between 0 and 1; 1 for all tokens if they are equally relevant. */
function relevance(x: Matrix, words: Matrix): Float64Array {
  const [n, m] = [x.data.length / x.width, words.data.length / words.width];
  // The mean of the cosines is the inner product with the mean of the unit rows.
  const data = new Float32Array((n + 1) * x.width);
  data.set(x.data);
  for (let t = 0; t < m; t++) addRow(data, n, words, t, 1 / m);
  const raw = Float64Array.from({ length: n }, (_, i) => -dot({ data, width: x.width }, i, n));
  const [low, high] = [raw.reduce((a, b) => Math.min(a, b)), raw.reduce((a, b) => Math.max(a, b))];
  return raw.map((value) => (high > low ? (value - low) / (high - low) : 1));
}
