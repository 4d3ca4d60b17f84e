// VideoScan (Li et al., arXiv 2503.09387), the part that needs no training: one carrier token for each frame, the mean of the frame's projected
// tokens; a bank of limited size that forgets the earlier carrier of the adjacent pair that is most alike; and a few tokens of the frame beside it.
// Stage: tower (on projected tokens). Query-aware: no. Safe for later turns: yes, for what carriers show.
// Differences: a carrier is the mean itself, where the published code has a trained decoder read the frame before it; the tokens beside it are those
// with the largest product with it, where the published code reads its attention in each layer; positions are renumbered without gaps, where the
// published ones overlap; newline rows do not count. A picture is a film of one frame.

import { COUNT, checkOptions, NATURAL } from '../options';
import type { Matrix, Selection, SparsityMethod, TowerView } from './method';
import { POSITIONS, SHARE } from './options';
import { shareOut } from './shares';
import { budget, topK } from './top_k';
import { dot, meansOf, product, takeRows, unitRows } from './vectors';

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
  const given = checkOptions('videoScan', options, {
    memory: COUNT,
    addKv: NATURAL,
    prefillSparsity: SHARE,
    positions: POSITIONS,
  });
  const { memory = 63, addKv = 0, prefillSparsity, positions = 'compact' } = given;
  const rowsOf = ({ t, h, w }: TowerView['grid']): { bank: number; rows: number[] } => {
    if (prefillSparsity === undefined) return { bank: memory, rows: Array(t).fill(Math.min(h * w, 1 + addKv)) };
    const kept = budget(t * h * w, prefillSparsity);
    if (kept < t) return { bank: kept, rows: Array(t).fill(1) };
    return { bank: t, rows: shareOut(kept, Array(t).fill(1), { least: 1, most: h * w }) };
  };
  return {
    name: 'videoscan',
    positions,
    prune: {
      rows: 'projected',
      select: (grids) =>
        grids.map((film) => {
          const { bank, rows } = rowsOf(film.grid);
          // At 0 the film itself is kept, without carriers.
          return prefillSparsity === 0 ? everyToken(film) : carried(film, bank, rows);
        }),
    },
  };
}

const everyToken = ({ tokens }: TowerView): Int32Array => Int32Array.from({ length: tokens }, (_, i) => i);

/** Number of rows that stand for a film. */
export function videoScanBudget({ t, h, w }: TowerView['grid'], sparsity: number): number {
  return budget(t * h * w, sparsity);
}

/** Of each frame in the bank the tokens with the largest product with its carrier, and in place of the frame's last token the carrier. */
function carried(film: TowerView, bank: number, rows: readonly number[]): Selection {
  const [t, n] = [film.grid.t, film.grid.h * film.grid.w];
  const x = film.projected();
  const frames = Array.from({ length: t }, (_, frame) => Array.from({ length: n }, (_, i) => frame * n + i));
  const carriers = { data: meansOf(x, frames), width: x.width };
  const kept: number[] = [];
  const parts: Float32Array[] = [];
  for (const frame of remembered(unitRows(carriers), t, bank)) {
    const products = Float32Array.from({ length: n - 1 }, (_, i) => product(carriers, frame, x, frame * n + i));
    const own = topK(products, (rows[frame] as number) - 1).map((i) => frame * n + i);
    for (const token of own) kept.push(token);
    kept.push((frame + 1) * n - 1);
    parts.push(takeRows(x, own), takeRows(carriers, Int32Array.of(frame)));
  }
  const all = new Float32Array(kept.length * x.width);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return { kept: Int32Array.from(kept), rows: all };
}

/** The frames whose carriers are left: after each one that is too many, the earlier of the most similar adjacent pair goes, of equal ones the first. */
function remembered(carriers: Matrix, t: number, bank: number): number[] {
  const left: number[] = [];
  /** The cosine of each carrier that is left and the next one. */
  const likeness: number[] = [];
  for (let frame = 0; frame < t; frame++) {
    if (left.length > 0) likeness.push(dot(carriers, left.at(-1) as number, frame));
    left.push(frame);
    if (left.length <= bank) continue;
    const pair = likeness.reduce((best, value, i) => (value > (likeness[best] as number) ? i : best), 0);
    left.splice(pair, 1);
    likeness.splice(pair, 1);
    if (pair > 0) likeness[pair - 1] = dot(carriers, left[pair - 1] as number, left[pair] as number);
  }
  return left;
}
