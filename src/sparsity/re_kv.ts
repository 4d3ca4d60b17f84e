// ReKV-style retrieval in two levels (after Di et al., arXiv 2503.00540): per layer, the frames whose keys are most similar to the question's mean query, and
// then, as SparseVILA does, the rows of these frames that the question attends most.
// Stage: decode. Query-aware: yes. Safe for later turns: yes, every row stays in the cache.
// Differences: frames keep their positions, where ReKV numbers the retrieved ones afresh from 0; the question is prefilled once, each of its layers over
// the frames that the layer has chosen, where ReKV runs the question a second time; the score is always the cosine, where ReKV takes the dot
// product while everything fits its window. The second level is not in ReKV, and is off by default. By default a
// frame is compared by the keys that differ most from their mean, where ReKV compares the mean: one thing in a frame hardly moves it.

import { COUNT, checkOptions } from '../options';
import type { SparsityMethod } from './method';
import { SHARE } from './options';
import { budget, topK } from './top_k';

export interface ReKvOptions {
  /** Most frames that a question attends in a layer; default 64. */
  readonly frames?: number;
  /**
   * Number of keys by which a frame is compared, those that differ most from the frame's mean key; 'mean': that one alone, as ReKV does. Default 8. They
   * are held in host memory as f32.
   */
  readonly frameKeys?: number | 'mean';
  /** Number of the last frames that each frame attends when the film is read; default: all, as without this method. ReKV's is about 77 frames of 196 rows. */
  readonly localFrames?: number;
  /** Share of the frames that a question leaves out at least, 0 <= s < 1; default 0. */
  readonly frameSparsity?: number;
  /** Share of all retained visual rows that decoding leaves out at least, 0 <= d < 1; default 0: it attends all rows of the chosen frames. */
  readonly decodeSparsity?: number;
}

export function reKv(options: ReKvOptions = {}): SparsityMethod {
  const given = checkOptions('reKv', options, {
    frames: COUNT,
    localFrames: COUNT,
    frameKeys: {
      expected: "an integer of at least 1, or 'mean'",
      accepts: (value) => value === 'mean' || COUNT.accepts(value),
    },
    frameSparsity: SHARE,
    decodeSparsity: SHARE,
  });
  const { frames = 64, localFrames, frameKeys = 8, frameSparsity = 0, decodeSparsity = 0 } = given;
  return {
    name: 'rekv',
    retrieve: {
      ...(localFrames && { localFrames }),
      ...(frameKeys !== 'mean' && { frameKeys }),
      frames: (scores) => topK(scores, Math.min(frames, budget(scores.length, frameSparsity))),
      select: (relevance, _, places, total = places.length) =>
        topK(relevance, Math.min(relevance.length, budget(total, decodeSparsity))),
    },
  };
}
