// HiPrune (Liu et al., arXiv 2508.00553): keeps anchors, the tokens most attended in a middle tower layer; buffers, their neighbors in
// the grid; and registers, the tokens most attended in a deep layer.
// Stage: tower. Query-aware: no. Safe for later turns: yes, for what the kept tokens show.
// Differences: neighbors outside the plane do not count, where the published code wraps rows; the deep layer is the one that features
// come from (-2).

import { checkOptions } from '../options';
import type { SparsityMethod, TowerView } from './method';
import { LAYER, PRUNING, SHARE } from './options';
import { perPlaneBudget } from './planes';
import { roundHalfEven, topK } from './top_k';

export interface HiPruneOptions {
  /** Share of visual tokens dropped after the tower; default 2/3. */
  readonly prefillSparsity?: number;
  /** Share of the budget for anchors with their four buffers; default 0.1. */
  readonly alpha?: number;
  /** Tower layer of the anchors; default 1/3 of the depth, which is the ninth of 24 layers. */
  readonly objectLayer?: number;
  /** Tower layer of the registers; default -2. */
  readonly deepLayer?: number;
  readonly positions?: 'original' | 'compact';
}

/** Anchors: top round(T alpha / 5) by the column mean of the object layer; then buffers around them; then registers up to T tokens. */
export function hiPrune(options: HiPruneOptions = {}): SparsityMethod {
  const given = checkOptions('hiPrune', options, { ...PRUNING, alpha: SHARE, objectLayer: LAYER, deepLayer: LAYER });
  const { prefillSparsity = 2 / 3, alpha = 0.1, objectLayer = 1 / 3, deepLayer = -2, positions = 'original' } = given;
  return {
    name: 'hiprune',
    positions,
    prune: {
      taps: { salience: [objectLayer, deepLayer] },
      scope: 'plane',
      select: perPlaneBudget(prefillSparsity, (plane, kept) => hierarchical(plane, kept, alpha)),
    },
  };
}

function hierarchical(plane: TowerView, kept: number, alpha: number): Int32Array {
  const { w: cols, h: rows } = plane.grid;
  const anchors = topK(plane.salience(0), roundHalfEven((kept * alpha) / 5));
  // Means of softmax values are at most 1, so adding 2 ranks buffers above every register, and adding 4 ranks anchors above every buffer.
  const ranks = plane.salience(1).slice();
  const raise = (token: number, by: number): void => {
    ranks[token] = Math.max(ranks[token] as number, (plane.salience(1)[token] as number) + by);
  };
  for (const anchor of anchors) {
    const [row, col] = [Math.floor(anchor / cols), anchor % cols];
    raise(anchor, 4);
    if (col > 0) raise(anchor - 1, 2);
    if (col < cols - 1) raise(anchor + 1, 2);
    if (row > 0) raise(anchor - cols, 2);
    if (row < rows - 1) raise(anchor + cols, 2);
  }
  return topK(ranks, kept);
}
