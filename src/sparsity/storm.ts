// STORM's temporal sampling (Jiang et al., arXiv 2503.04130): every s-th frame of the tokens. The paper's temporal layers and pooling are trained,
// its sampling at test time is not; on a model without these layers it drops frames after the tower.
// Stage: tower. Query-aware: no. Safe for later turns: yes, for the frames that stay. Positions stay, and so do the texts of dropped frames, such
// as their times. Pictures stay whole.
// Difference: s need not be an integer; frame i of those that stay is frame floor(i s).

import { checkOptions } from '../options';
import type { SparsityMethod, TowerView } from './method';
import { POSITIONS, SHARE } from './options';

export interface StormOptions {
  /** Share of the frames dropped: s = 1 / (1 - prefillSparsity). Default 0.5, every second frame stays. */
  readonly prefillSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

/** All tokens of the frames 0, s, 2s, … */
export function storm(options: StormOptions = {}): SparsityMethod {
  const given = checkOptions('storm', options, { prefillSparsity: SHARE, positions: POSITIONS });
  const { prefillSparsity = 0.5, positions = 'original' } = given;
  const select = ({ grid: { t, h, w } }: TowerView): Int32Array => {
    const frames = sampled(t, prefillSparsity);
    return Int32Array.from({ length: frames.length * h * w }, (_, i) => {
      return (frames[Math.floor(i / (h * w))] as number) * h * w + (i % (h * w));
    });
  };
  return { name: 'storm', positions, prune: { select: (grids) => grids.map(select) } };
}

/** Number of tokens that are kept of a film. */
export function stormBudget({ t, h, w }: TowerView['grid'], sparsity: number): number {
  return sampled(t, sparsity).length * h * w;
}

function sampled(t: number, sparsity: number): number[] {
  const frames: number[] = [];
  // What rounding takes from a multiple of s is added.
  for (let frame = 0; frame < t; frame = Math.floor(frames.length / (1 - sparsity) + 1e-9)) frames.push(frame);
  return frames;
}
