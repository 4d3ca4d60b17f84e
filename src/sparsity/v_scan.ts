// VScan (Zhang et al., arXiv 2505.22654). Stage 1, in the tower: half of the tokens by a shallow layer, spread over windows, half by
// a deep layer, and every other token merged into its likest. Stage 2, in the decoder: rows that the last row attends least.
// Stage: tower + prefill. Query-aware: stage 2. Safe for later turns: no (stage 1 alone is).
// Here: the form for towers without CLS (column mean, 4 x 4 windows, greedy with a cap); rows keep their positions.

import type { Selection, SparsityMethod, TowerView } from './method';
import { checkOptions, LAYER, POSITIONS, SHARE } from './options';
import { stageBudget } from './stages';
import { budget, topK } from './top_k';
import { addRow, nearest, takeRows, unitRows, without } from './vectors';

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

/** Stage 1 keeps T = 1.5 of the mean, stage 2 then a third, where it lies at half of the depth. */
export function vScan(options: VScanOptions = {}): SparsityMethod {
  checkOptions('vScan', options, {
    prefillSparsity: SHARE,
    localLayer: LAYER,
    globalLayer: LAYER,
    layer: LAYER,
    positions: POSITIONS,
  });
  const { prefillSparsity = 8 / 9, localLayer = 5 / 24, globalLayer = -2, layer = 1 / 2 } = options;
  const keep = 1 - prefillSparsity;
  const first = Math.min(1, 1.5 * keep);
  return {
    name: 'vscan',
    tower: { salience: [localLayer, globalLayer] },
    positions: options.positions ?? 'original',
    merges: 'projected',
    prune: (images) => images.map((image) => scan(image, budget(image.tokens, 1 - first))),
    dropFrom: [layer],
    scoresOf: 'next',
    drop: (view) => topK(view.scores, stageBudget(view, [1 / 3], keep / first)),
  };
}

/** x' = (x + sum of those merged into it) / (1 + their number), on projected tokens. */
function scan(image: TowerView, kept: number): Selection {
  const local = localTokens(image, Math.floor(kept / 2));
  const scores = image.salience(1).slice();
  for (const token of local) scores[token] = Number.POSITIVE_INFINITY;
  const indices = topK(scores, kept);
  const merged = without(image.tokens, indices);
  if (merged.length === 0) return indices;
  const projected = image.projected();
  const unit = unitRows(projected);
  const counts = new Float64Array(kept).fill(1);
  const rows = takeRows(projected, indices);
  for (const token of merged) {
    const target = nearest(unit, token, indices);
    addRow(rows, target, projected, token, 1);
    counts[target] = (counts[target] as number) + 1;
  }
  return { kept: indices, rows: rows.map((x, i) => x / (counts[Math.floor(i / projected.width)] as number)) };
}

/** The best tokens of the shallow layer, at most ceil(count / windows) of each window. */
function localTokens({ grid, tokens, salience }: TowerView, count: number): number[] {
  const across = Math.ceil(grid.cols / WINDOW);
  const windowOf = (token: number): number =>
    Math.floor(token / grid.cols / WINDOW) * across + Math.floor((token % grid.cols) / WINDOW);
  const cap = Math.ceil(count / (across * Math.ceil(grid.rows / WINDOW)));
  const taken = new Map<number, number>();
  const scores = salience(0);
  const order = Array.from({ length: tokens }, (_, i) => i).sort(
    (a, b) => (scores[b] as number) - (scores[a] as number) || a - b,
  );
  const chosen: number[] = [];
  for (const token of order) {
    const inWindow = taken.get(windowOf(token)) ?? 0;
    if (inWindow >= cap || chosen.length >= count) continue;
    taken.set(windowOf(token), inWindow + 1);
    chosen.push(token);
  }
  return chosen;
}
