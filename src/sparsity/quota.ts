// QuoTA (Luo et al., arXiv 2503.08689): frames that a model finds relevant to the question get more tokens; each frame's grid of tokens is resized
// to its budget.
// Stage: tower (on projected tokens). Query-aware: yes, by its scores (`quotaFor`). Safe for later turns: no. Positions stay.
// Differences: no grid grows beyond its own size, the rest goes to other frames; a frame has no newline rows of its own, so that its budget counts all
// rows; if every score is 0, all frames are equal. A picture is a film of one frame.

import { type Check, checkOptions, listOf } from '../options';
import type { SparsityMethod, TowerView } from './method';
import { POSITIONS, SHARE } from './options';
import { perFilm } from './planes';
import { areaOf, gridWithin, resized } from './resize';
import { shareOut } from './shares';
import { budget } from './top_k';

const PROBABILITIES: Check = {
  expected: 'a list of probabilities',
  accepts: (value) =>
    value === undefined ||
    (Array.isArray(value) && Array.from(value).every((p) => typeof p === 'number' && p >= 0 && p <= 1)),
};

export interface QuotaOptions {
  /** For each medium of the turn, the probability of each of its frames to be relevant; undefined where all are equal. Default: everywhere. */
  readonly scores?: readonly (readonly number[] | undefined)[];
  /** Share of a film's visual tokens dropped, at least; default 0.75. */
  readonly prefillSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

/** Frame f gets n_f of the film's K tokens by (100 p_f)^2, and its h × w tokens become h' × w' <= n_f by bilinear interpolation. */
export function quota(options: QuotaOptions = {}): SparsityMethod {
  const given = checkOptions('quota', options, {
    scores: listOf('lists of probabilities, one for each medium,', PROBABILITIES),
    prefillSparsity: SHARE,
    positions: POSITIONS,
  });
  const { scores = [], prefillSparsity = 0.75, positions = 'original' } = given;
  return {
    name: 'quota',
    positions,
    prune: {
      ...{ rows: 'projected', question: true },
      select: perFilm((frames, { grid, medium }) => {
        const own = scoresOfPlanes(scores[medium] ?? [], grid.t);
        const budgets = quotaBudgets(budget(grid.t * grid.h * grid.w, prefillSparsity), own, grid.h * grid.w);
        return frames.map((frame, i) => resized(frame, budgets[i] as number));
      }, 'projected'),
    },
  };
}

/** Number of rows that stand for a film whose frames are equal. */
export function quotaRows({ t, h, w }: TowerView['grid'], sparsity: number): number {
  const budgets = quotaBudgets(budget(t * h * w, sparsity), Array(t).fill(0), h * w);
  return budgets.reduce((sum, n) => sum + areaOf(gridWithin(n, { h, w })), 0);
}

/** Tokens of each frame: `total` in proportion to (100 p)^2, at most `most` each. */
export function quotaBudgets(total: number, scores: readonly number[], most: number): number[] {
  return shareOut(
    total,
    scores.map((p) => (100 * p) ** 2),
    { least: 0, most },
  );
}

/** Of each plane the mean of its frames' scores: planes may be pairs or means of frames, the last of fewer. */
function scoresOfPlanes(scores: readonly number[], t: number): number[] {
  const each = Math.max(1, Math.ceil(scores.length / t));
  return Array.from({ length: t }, (_, plane) => {
    const own = scores.slice(plane * each, (plane + 1) * each);
    return own.reduce((sum, p) => sum + p, 0) / Math.max(1, own.length);
  });
}
