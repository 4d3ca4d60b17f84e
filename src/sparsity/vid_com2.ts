// VidCom2 (Liu et al., arXiv 2505.14454): frames that differ from the film's mean get more tokens, and a frame keeps its tokens that differ most
// from the means of the film and of the frame.
// Stage: tower (on projected tokens). Query-aware: no. Safe for later turns: yes, for what the kept tokens show. Positions stay.
// Differences: a film keeps exactly its budget, where the published code rounds frame by frame; a picture is a film of one frame.

import { checkOptions } from '../options';
import type { Matrix, SparsityMethod, TowerView } from './method';
import { PRUNING } from './options';
import { perGridBudget } from './planes';
import { filmBudget, shareOut, softmax, topOfFrames } from './shares';
import { topK } from './top_k';
import { frameMeans, mean, squaredDistance, takeColumns, unitRows, variance } from './vectors';

export interface VidCom2Options {
  /** Share of a film's visual tokens dropped; each frame keeps one at least. Default 0.75. */
  readonly prefillSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

/**
 * G(x, c) = sum over k = -3 .. 1 of exp(-|x - c|^2 / 2^(k + 1)), on unit rows of the half of the channels that vary least; v = G(x, film's
 * mean), f = G(x, frame's mean). Frame t gets the rate R (1 + p_t - mean p), p = softmax(-mean v / 0.01), and keeps its lowest v + f.
 */
export function vidCom2(options: VidCom2Options = {}): SparsityMethod {
  const given = checkOptions('vidCom2', options, PRUNING);
  const { prefillSparsity = 0.75, positions = 'original' } = given;
  return {
    name: 'vidcom2',
    positions,
    prune: { select: perGridBudget((grid) => filmBudget(grid, prefillSparsity), outliers) },
  };
}

function outliers({ tokens, grid, projected }: TowerView, kept: number): Int32Array {
  const n = grid.h * grid.w;
  const x = unitRows(steadyChannels(projected()));
  const centers = frameMeans(x, grid.t);
  const center = frameMeans(centers, 1);
  const toFilm = Float64Array.from({ length: tokens }, (_, i) => gaussians(x, i, center, 0));
  const scores = Float32Array.from(toFilm, (own, i) => -own - gaussians(x, i, centers, Math.floor(i / n)));
  const differences = Array.from({ length: grid.t }, (_, t) => -mean(toFilm.subarray(t * n, (t + 1) * n)));
  const rates = softmax(differences, 0.01).map((own, _, p) => 1 + own - 1 / p.length);
  return topOfFrames(scores, shareOut(kept, rates, { least: 1, most: n }));
}

/** The half of the channels with the lowest variance over all rows, at least one. */
function steadyChannels(x: Matrix): Matrix {
  const rows = Array.from({ length: x.data.length / x.width }, (_, i) => i);
  const spread = (channel: number): number => variance(rows.map((i) => x.data[i * x.width + channel] as number));
  const steady = Float32Array.from({ length: x.width }, (_, channel) => -spread(channel));
  return takeColumns(x, topK(steady, Math.max(1, Math.floor(x.width / 2))));
}

/** G of row i and a center. */
function gaussians(x: Matrix, i: number, centers: Matrix, at: number): number {
  const square = squaredDistance(x, i, centers, at);
  return [-3, -2, -1, 0, 1].reduce((sum, k) => sum + Math.exp(-square / 2 ** (k + 1)), 0);
}
