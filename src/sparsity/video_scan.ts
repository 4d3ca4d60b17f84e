// VideoScan (Li et al., arXiv 2503.09387), the part that needs no training: one carrier token for each frame, the mean of the frame's projected
// tokens; a bank of limited size that forgets the earlier carrier of the adjacent pair that is most alike; and a few tokens of the frame beside it.
// Stage: tower (on projected tokens). Query-aware: no. Safe for later turns: yes, for what carriers show.
// Differences: a carrier is the mean itself, where the published code has a trained decoder read the frame before it; the tokens beside it are those
// with the largest product with it, where the published code reads its attention in each layer; positions are renumbered without gaps, where the
// published ones overlap; newline rows do not count. A picture is a film of one frame.

import { COUNT, checkOptions, NATURAL } from '../options';
import type { Matrix, Selection, SparsityMethod, TowerView } from './method';
import { PRUNING } from './options';
import { shareOut } from './shares';
import { budget, topK } from './top_k';
import { dot, everyIndex, frameMeans, product, takeRows, unitRows } from './vectors';

export interface VideoScanOptions {
  /** Most carriers of a film. Default 63: the published bank of 64 drops one as soon as it is full. */
  readonly memory?: number;
  /** Number of tokens that are kept beside each carrier, the published `add_kv`; default 0. */
  readonly addKv?: number;
  /** Share of visual tokens dropped, in place of these two: a smaller bank if less than a carrier for each frame is left, else more tokens. */
  readonly prefillSparsity?: number;
  /** Default 'compact'. */
  readonly positions?: 'original' | 'compact';
}

export function videoScan(options: VideoScanOptions = {}): SparsityMethod {
  const given = checkOptions('videoScan', options, { ...PRUNING, memory: COUNT, addKv: NATURAL });
  const { memory = 63, addKv = 0, prefillSparsity, positions = 'compact' } = given;
  const select = (film: TowerView): Selection => {
    const [t, n] = [film.grid.t, film.tokens / film.grid.t];
    if (prefillSparsity === undefined) return carried(film, memory, Array(t).fill(Math.min(n, 1 + addKv)));
    // At 0 the film itself is kept, without carriers.
    if (prefillSparsity === 0) return everyIndex(film.tokens);
    const kept = budget(film.tokens, prefillSparsity);
    return carried(film, kept, shareOut(Math.max(t, kept), Array(t).fill(1), { least: 1, most: n }));
  };
  return { name: 'videoscan', positions, prune: { rows: 'projected', select: (grids) => grids.map(select) } };
}

/** Number of rows that stand for a film. */
export function videoScanBudget({ t, h, w }: TowerView['grid'], sparsity: number): number {
  return budget(t * h * w, sparsity);
}

/** Of each frame in the bank the tokens with the largest product with its carrier, and in place of the frame's last token the carrier. */
function carried(film: TowerView, bank: number, rows: readonly number[]): Selection {
  const [x, n] = [film.projected(), film.tokens / film.grid.t];
  const carriers = frameMeans(x, film.grid.t);
  const kept = remembered(unitRows(carriers), film.grid.t, bank).flatMap((frame) => {
    const products = Float32Array.from({ length: n - 1 }, (_, i) => product(carriers, frame, x, frame * n + i));
    const own = topK(products, (rows[frame] as number) - 1).map((i) => frame * n + i);
    return [...own, (frame + 1) * n - 1];
  });
  const merged = takeRows(x, Int32Array.from(kept));
  for (const [at, token] of kept.entries())
    if (token % n === n - 1) merged.set(takeRows(carriers, Int32Array.of(Math.floor(token / n))), at * x.width);
  return { kept: Int32Array.from(kept), rows: merged };
}

/** The frames whose carriers are left: after each one that is too many, the earlier of the most similar adjacent pair goes, of equal ones the first. */
function remembered(carriers: Matrix, t: number, bank: number): number[] {
  const left: number[] = [];
  /** The cosine of each carrier that is left and the one before it. */
  const likeness = [Number.NEGATIVE_INFINITY];
  const compare = (at: number): void => {
    if (at > 0 && at < left.length) likeness[at] = dot(carriers, left[at - 1] as number, left[at] as number);
  };
  for (let frame = 0; frame < t; frame++) {
    compare(left.push(frame) - 1);
    if (left.length <= bank) continue;
    const pair = likeness.reduce((best, value, i) => (value > (likeness[best] as number) ? i : best), 1) - 1;
    left.splice(pair, 1);
    likeness.splice(pair + 1, 1);
    compare(pair);
  }
  return left;
}
