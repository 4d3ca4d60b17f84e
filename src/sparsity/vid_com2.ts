// VidCom2 (Liu et al., arXiv 2505.14454): frames that differ from the film's mean get more tokens, and a frame keeps its tokens that differ most
// from the means of the film and of the frame.
// Stage: tower (on projected tokens). Query-aware: no. Safe for later turns: yes, for what the kept tokens show. Positions stay.
// Differences: a film keeps exactly its budget, where the published code rounds frame by frame; a picture is a film of one frame.

import { checkOptions } from '../options';
import type { Matrix, SparsityMethod, TowerView } from './method';
import { POSITIONS, SHARE } from './options';
import { shareOut, softmax, topOfFrames } from './shares';
import { budget, topK } from './top_k';
import { meansOf, unitRows } from './vectors';

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
  const given = checkOptions('vidCom2', options, { prefillSparsity: SHARE, positions: POSITIONS });
  const { prefillSparsity = 0.75, positions = 'original' } = given;
  return {
    name: 'vidcom2',
    positions,
    prune: { select: (grids) => grids.map((film) => outliers(film, filmBudget(film.grid, prefillSparsity))) },
  };
}

/** Number of tokens that are kept of a film: one of each frame at least. */
export function filmBudget({ t, h, w }: TowerView['grid'], sparsity: number): number {
  return Math.max(t, budget(t * h * w, sparsity));
}

function outliers({ tokens, grid, projected }: TowerView, kept: number): Int32Array {
  if (kept === tokens) return Int32Array.from({ length: kept }, (_, i) => i);
  const n = grid.h * grid.w;
  const x = unitRows(steadyChannels(projected()));
  const frames = Array.from({ length: grid.t }, (_, t) => Array.from({ length: n }, (_, i) => t * n + i));
  const centers = { data: meansOf(x, frames), width: x.width };
  const center = { data: meansOf(centers, [[...frames.keys()]]), width: x.width };
  const toFilm = Float64Array.from({ length: tokens }, (_, i) => gaussians(x, i, center, 0));
  const scores = Float32Array.from(toFilm, (own, i) => -own - gaussians(x, i, centers, Math.floor(i / n)));
  const p = softmax(
    frames.map((own) => own.reduce((sum, i) => sum - (toFilm[i] as number), 0) / n),
    0.01,
  );
  const rates = p.map((own) => 1 + own - 1 / p.length);
  return topOfFrames(scores, shareOut(kept, rates, { least: 1, most: n }));
}

/** The half of the channels with the lowest variance over all rows, at least one. */
function steadyChannels(x: Matrix): Matrix {
  const { data, width } = x;
  const rows = data.length / width;
  const means = meansOf(x, [Array.from({ length: rows }, (_, i) => i)]);
  const spread = new Float64Array(width);
  for (const [at, value] of data.entries())
    spread[at % width] = (spread[at % width] as number) + (value - (means[at % width] as number)) ** 2;
  const channels = topK(
    Float32Array.from(spread, (own) => -own),
    Math.max(1, Math.floor(width / 2)),
  );
  const width2 = channels.length;
  return {
    data: Float32Array.from(
      { length: rows * width2 },
      (_, at) => data[Math.floor(at / width2) * width + (channels[at % width2] as number)] as number,
    ),
    width: width2,
  };
}

/** G of row i and a center. */
function gaussians(x: Matrix, i: number, centers: Matrix, at: number): number {
  let square = 0;
  for (let c = 0; c < x.width; c++)
    square += ((x.data[i * x.width + c] as number) - (centers.data[at * x.width + c] as number)) ** 2;
  return [-3, -2, -1, 0, 1].reduce((sum, k) => sum + Math.exp(-square / 2 ** (k + 1)), 0);
}
