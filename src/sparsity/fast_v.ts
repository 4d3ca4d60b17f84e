// FastV (Chen et al., arXiv 2403.06764): after the first layers, the visual rows that the prompt's last row attends least are dropped
// from all deeper layers.
// Stage: prefill. Query-aware: yes. Safe for later turns: no, rows that the first question drops are lost. Positions stay.

import { checkOptions } from '../options';
import type { SparsityMethod } from './method';
import { LAYER, SHARE } from './options';
import { stageBudget } from './stages';
import { topK } from './top_k';

export interface FastVOptions {
  /** Share of visual rows dropped, mean over all layers; default 15/32, R = 50 % from layer 2 of 32 on. */
  readonly prefillSparsity?: number;
  /** K, the first layer with fewer rows; default 2/32 of the depth, and at least 1. */
  readonly layer?: number;
}

/** Before layer K: top round(N (1 - R)) by layer K - 1's attention, mean over heads, last row. */
export function fastV(options: FastVOptions = {}): SparsityMethod {
  const given = checkOptions('fastV', options, { prefillSparsity: SHARE, layer: LAYER });
  const { prefillSparsity = 15 / 32, layer = 2 / 32 } = given;
  return {
    name: 'fastv',
    drop: {
      layers: [layer],
      select: (view) => topK(view.scores, stageBudget(view, [0.5], 1 - prefillSparsity)),
    },
  };
}
