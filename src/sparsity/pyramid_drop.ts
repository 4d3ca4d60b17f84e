// PyramidDrop (Xing et al., arXiv 2410.17247): at a quarter, half and three quarters of the depth, drops the visual rows that the last
// row attends least, by the same factor each time.
// Stage: prefill. Query-aware: yes. Safe for later turns: no.
// Difference: rows keep their positions; the published code renumbers them.

import { checkOptions } from '../options';
import type { SparsityMethod } from './method';
import { SHARE, THREE_LAYERS } from './options';
import { stageBudget } from './stages';
import { topK } from './top_k';

export interface PyramidDropOptions {
  /** Share of visual rows dropped, mean over all layers; default 17/32, lambda = 1/2. */
  readonly prefillSparsity?: number;
  /** Decoder layers at which the stages begin; default 1/4, 1/2 and 3/4 of the depth. */
  readonly layers?: readonly [number, number, number];
}

/** From three layers on, keeps lambda, lambda^2, lambda^3 of the rows by that layer's attention, mean over heads, last row. */
export function pyramidDrop(options: PyramidDropOptions = {}): SparsityMethod {
  const given = checkOptions('pyramidDrop', options, { prefillSparsity: SHARE, layers: THREE_LAYERS });
  const { prefillSparsity = 17 / 32, layers = [1 / 4, 1 / 2, 3 / 4] } = given;
  return {
    name: 'pyramiddrop',
    drop: {
      layers,
      scores: 'next',
      select: (view) => topK(view.scores, stageBudget(view, [1 / 2, 1 / 4, 1 / 8], 1 - prefillSparsity)),
    },
  };
}
