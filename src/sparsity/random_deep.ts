// Random in deep layers: between two decoder layers, drops rows at random. What a method that drops in deep layers must beat to have chosen
// at all (Information Horizon, arXiv 2512.07580: beyond some layer no selection does).
// Stage: prefill. Query-aware: no. Safe for later turns: yes, for the rows that are drawn. Source: baseline.

import { checkOptions, SEED } from '../options';
import { uniform } from '../text/random';
import type { SparsityMethod } from './method';
import { LAYER, SHARE } from './options';
import { stageBudget } from './stages';
import { topK } from './top_k';

export interface RandomDeepOptions {
  /** Share of visual rows dropped, mean over all layers; default 1/4: half of the rows in the deeper half of the layers. */
  readonly prefillSparsity?: number;
  /** The first layer with fewer rows; default half of the depth. */
  readonly layer?: number;
  /** Seed of the draw; default 0. */
  readonly seed?: number;
}

/** Before the layer: a draw of as many rows as the mean over all layers allows, at least one. */
export function randomDeep(options: RandomDeepOptions = {}): SparsityMethod {
  const given = checkOptions('randomDeep', options, { prefillSparsity: SHARE, layer: LAYER, seed: SEED });
  const { prefillSparsity = 1 / 4, layer = 1 / 2, seed = 0 } = given;
  return {
    name: 'random-deep',
    drop: {
      layers: [layer],
      select: (view) => topK(view.scores.map(uniform(seed)), stageBudget(view, [0.5], 1 - prefillSparsity)),
    },
  };
}
