// Random baseline.
// Query-aware: no. Safe for later turns: yes. Source: none.

import { checkOptions, SEED } from '../options';
import { uniform as uniformNumbers } from '../text/random';
import type { SparsityMethod } from './method';
import { POSITIONS, SHARE } from './options';
import { perPlane } from './planes';
import { budget, topK } from './top_k';

export interface RandomOptions {
  /** Share of visual tokens dropped after the tower; default 0. */
  readonly prefillSparsity?: number;
  /** Share of the retained visual rows that decoding leaves out; default 0. */
  readonly decodeSparsity?: number;
  readonly positions?: 'original' | 'compact';
  /** Seed of the draws; default 0. */
  readonly seed?: number;
}

/** Every plane and every layer has its own draw; equal seeds and sizes give equal draws. */
export function random(options: RandomOptions = {}): SparsityMethod {
  const given = checkOptions('random', options, {
    prefillSparsity: SHARE,
    decodeSparsity: SHARE,
    positions: POSITIONS,
    seed: SEED,
  });
  const { prefillSparsity = 0, decodeSparsity = 0, positions = 'original', seed = 0 } = given;
  return {
    name: 'random',
    positions,
    prune: {
      select: (grids) => {
        const draw = uniformNumbers(seed);
        return perPlane(({ tokens }) => drawn(tokens, prefillSparsity, draw))(grids);
      },
    },
    retrieve: {
      select: ({ length }, layer) => drawn(length, decodeSparsity, uniformNumbers(seed + 1 + layer)),
    },
  };
}

function drawn(n: number, sparsity: number, draw: () => number): Int32Array {
  return topK(Float32Array.from({ length: n }, draw), budget(n, sparsity));
}
