// VScan (Zhang et al., arXiv 2505.22654). Stage 1, in the tower, keeps tokens of a shallow layer, spread over windows, and of a deep layer,
// half each, and merges every other token into the most similar kept one. Stage 2, in the decoder, drops the rows that the last row attends least.
// Stage: tower + prefill. Query-aware: stage 2. Safe for later turns: no (stage 1 alone is).
// Here: the form for towers without CLS (column mean, 4 x 4 windows, greedy with a cap); rows keep their positions.

import { checkOptions } from '../options';
import type { Selection, SparsityMethod, TowerView } from './method';
import { LAYER, PRUNING } from './options';
import { perPlaneBudget } from './planes';
import { stageBudget } from './stages';
import { ranked, topK } from './top_k';
import { meansOf, nearest, unitRows, without } from './vectors';

export interface VScanOptions {
  /** Share of visual rows dropped, mean over the decoder's layers, by both stages; default 8/9: 96 of 576, then 32. */
  readonly prefillSparsity?: number;
  /** Tower layer of the local half; default 5/24 of the depth. */
  readonly localLayer?: number;
  /** Tower layer of the global half; default -2. */
  readonly globalLayer?: number;
  /** Decoder layer of stage 2; default half of the depth. */
  readonly layer?: number;
  readonly positions?: 'original' | 'compact';
}

const WINDOW = 4;

/** Stage 1 keeps T = 1.5 of the mean; stage 2 keeps a third of that if it is at half of the depth. */
export function vScan(options: VScanOptions = {}): SparsityMethod {
  const given = checkOptions('vScan', options, { ...PRUNING, localLayer: LAYER, globalLayer: LAYER, layer: LAYER });
  const { prefillSparsity = 8 / 9, positions = 'original' } = given;
  const { localLayer = 5 / 24, globalLayer = -2, layer = 1 / 2 } = given;
  const keep = 1 - prefillSparsity;
  const first = Math.min(1, 1.5 * keep);
  return {
    name: 'vscan',
    positions,
    prune: {
      taps: { salience: [localLayer, globalLayer] },
      rows: 'projected',
      scope: 'plane',
      select: perPlaneBudget(1 - first, scan, 'projected'),
    },
    drop: {
      ...{ layers: [layer], scores: 'next' },
      select: (view) => topK(view.scores, stageBudget(view, [1 / 3], keep / first)),
    },
  };
}

/** x' = (x + sum of the tokens merged into it) / (1 + their number), on projected tokens. */
function scan(plane: TowerView, kept: number): Selection {
  const local = localTokens(plane, Math.floor(kept / 2));
  const scores = plane.salience(1).slice();
  for (const token of local) scores[token] = Number.POSITIVE_INFINITY;
  const indices = topK(scores, kept);
  const projected = plane.projected();
  const unit = unitRows(projected);
  const groups = Array.from(indices, (token) => [token]);
  for (const token of without(plane.tokens, indices)) groups[nearest(unit, token, indices)]?.push(token);
  return { kept: indices, rows: meansOf(projected, groups) };
}

/** The best tokens by the shallow layer, at most ceil(count / windows) from each window. */
function localTokens({ grid, salience }: TowerView, count: number): Int32Array {
  const across = Math.ceil(grid.w / WINDOW);
  const cap = Math.ceil(count / (across * Math.ceil(grid.h / WINDOW)));
  const taken = new Map<number, number>();
  const best = ranked(salience(0)).filter((token) => {
    const [row, col] = [Math.floor(token / grid.w), token % grid.w];
    const window = Math.floor(row / WINDOW) * across + Math.floor(col / WINDOW);
    taken.set(window, (taken.get(window) ?? 0) + 1);
    return (taken.get(window) as number) <= cap;
  });
  return best.subarray(0, count);
}
