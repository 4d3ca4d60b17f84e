// V-CAST (Lin et al., arXiv 2603.27650): frames at which the path of the frames' means turns get more tokens, and a frame keeps its tokens that differ
// most from its mean or are longest.
// Stage: tower (on projected tokens). Query-aware: no. Safe for later turns: yes, for what the kept tokens show. Positions stay.
// Differences: what is left after rounding goes to different frames, where the published code gives it all to one; a picture is a film of one
// frame, where the published code keeps it whole.

import { checkOptions } from '../options';
import type { Matrix, SparsityMethod, TowerView } from './method';
import { PRUNING } from './options';
import { perGridBudget } from './planes';
import { filmBudget, shareOut, softmax, topOfFrames } from './shares';
import { dot, frameMeans, product, unitRows } from './vectors';

export interface VCastOptions {
  /** Share of a film's visual tokens dropped; each frame keeps one at least. Default 0.75. */
  readonly prefillSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

/**
 * r_t is the mean of a frame's tokens at unit length; c_t = 1 - cos(r_t - r_(t-1), r_(t+1) - r_t), 1 at both ends. Each frame gets one token,
 * and of the others a share by softmax(c / 0.7); it keeps its highest (1 - cos(x, r_t)) + minmax |x|.
 */
export function vCast(options: VCastOptions = {}): SparsityMethod {
  const given = checkOptions('vCast', options, PRUNING);
  const { prefillSparsity = 0.75, positions = 'original' } = given;
  return {
    name: 'vcast',
    positions,
    prune: { select: perGridBudget((grid) => filmBudget(grid, prefillSparsity), turning) },
  };
}

function turning({ tokens, grid, projected }: TowerView, kept: number): Int32Array {
  const [t, n] = [grid.t, grid.h * grid.w];
  const x = projected();
  const means = unitRows(frameMeans(x, t));
  const lengths = Float64Array.from({ length: tokens }, (_, i) => Math.sqrt(dot(x, i, i)));
  const scores = new Float32Array(tokens);
  for (let frame = 0; frame < t; frame++) {
    const own = lengths.subarray(frame * n, (frame + 1) * n);
    const least = own.reduce((a, b) => Math.min(a, b));
    const range = own.reduce((a, b) => Math.max(a, b)) - least + 1e-6;
    for (const [at, length] of own.entries()) {
      const i = frame * n + at;
      const cosine = length === 0 ? 0 : product(x, i, means, frame) / length;
      scores[i] = 1 - cosine + (length - least) / range;
    }
  }
  const weights = softmax(curvature(means, t), 0.7);
  const more = shareOut(kept - t, weights, { least: 0, most: n - 1 });
  return topOfFrames(
    scores,
    more.map((count) => count + 1),
  );
}

/** Of each row of a path, 1 - the cosine between the steps to it and from it. */
function curvature({ data, width }: Matrix, rows: number): number[] {
  const steps = Float32Array.from(
    { length: Math.max(0, rows - 1) * width },
    (_, at) => (data[at + width] as number) - (data[at] as number),
  );
  const unit = unitRows({ data: steps, width });
  return Array.from({ length: rows }, (_, t) => (t === 0 || t === rows - 1 ? 1 : 1 - dot(unit, t - 1, t)));
}
