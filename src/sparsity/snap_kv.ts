// SnapKV (Li et al., arXiv 2404.14469): after the prefill, each layer keeps the rows that the prompt's last rows attend most, pooled over
// neighbors, and removes the others.
// Stage: decode. Query-aware: yes. Safe for later turns: no, its retrieval is permanent.
// Differences: visual rows only (text stays); one choice for all heads of a layer (mean over heads); mean instead of sum over rows, which
// gives the same ranking.

import { COUNT, checkOptions } from '../options';
import type { SparsityMethod } from './method';
import { SHARE } from './options';
import { budget, topK } from './top_k';

export interface SnapKvOptions {
  /** Share of the turn's visual rows that are removed from the cache after its prefill; default 0.75. */
  readonly decodeSparsity?: number;
  /** w, the number of last rows of the question whose attention counts; default 32. */
  readonly window?: number;
  /** Width of the average pooling; default 5. */
  readonly kernel?: number;
}

/** Top k of avgpool(relevance of the last w rows), stride 1, zero padding. */
export function snapKv(options: SnapKvOptions = {}): SparsityMethod {
  const given = checkOptions('snapKv', options, { decodeSparsity: SHARE, window: COUNT, kernel: COUNT });
  const { decodeSparsity = 0.75, window = 32, kernel = 5 } = given;
  return {
    name: 'snapkv',
    retrieve: {
      window,
      permanent: true,
      select: (relevance) => topK(pooled(relevance, kernel), budget(relevance.length, decodeSparsity)),
    },
  };
}

function pooled(scores: Float32Array, kernel: number): Float32Array {
  const before = Math.floor((kernel - 1) / 2);
  return scores.map((_, i) => {
    let sum = 0;
    for (let j = Math.max(0, i - before); j <= Math.min(scores.length - 1, i - before + kernel - 1); j++)
      sum += scores[j] as number;
    return sum / kernel;
  });
}
