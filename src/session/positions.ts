// Positions of the tokens of a run of visual rows: on one axis in their order, or on the axes time, row and column.
// Source: M-RoPE (Qwen2-VL, arXiv 2409.12191, section 2.1); transformers 5.24 `get_vision_position_ids`.

import { type Grid, type MediumLayout, planeTokens, type Run } from '../models/media';
import type { RowModel } from '../models/model';
import { rangesOf, type TokenRange } from '../models/parts';
import type { Position } from '../ops/rope';
import type { SparsityMethod } from '../sparsity/method';

export interface PlacedRun {
  readonly positions: readonly Position[];
  /** Number by which the next position advances over the run, on every axis. */
  readonly advance: number;
}

export interface PositionRule {
  /** Whether positions have three axes. */
  readonly hasAxes: boolean;
  /** Whether kept tokens are renumbered without gaps, on each axis; otherwise pruned tokens keep their positions. */
  readonly isCompact: boolean;
}

export function positionRule({ decoder }: RowModel, { positions }: SparsityMethod): PositionRule {
  return { hasAxes: decoder.config.ropeAxes !== undefined, isCompact: positions === 'compact' };
}

type PlacedLayout = Pick<MediumLayout, 'grids' | 'planeStep'>;

/**
 * Positions of the kept tokens of a run that begins at position `begin`. The next position is 1 + the largest position on any axis, as in
 * Qwen's own code (transformers 5 ignores time, so that text after a long video overlaps it).
 * @param kept tokens of the run, ascending
 */
export function placeRun(
  layout: PlacedLayout,
  run: Run,
  kept: ArrayLike<number>,
  begin: number,
  { hasAxes, isCompact }: PositionRule,
): PlacedRun {
  const tokens = Array.from(kept);
  if (!hasAxes) {
    const positions = tokens.map((token, i) => begin + (isCompact ? i : token - run.from));
    return { positions, advance: isCompact ? tokens.length : run.to - run.from };
  }
  const { placeOf, advance } = axesOf(layout, run);
  const places = tokens.map(placeOf);
  if (!isCompact) return { positions: places.map(([t, row, col]) => [begin + t, begin + row, begin + col]), advance };
  const ranks = [0, 1, 2].map((axis) => ranksOf(places.map((place) => place[axis] as number)));
  const rank = (axis: number, value: number): number => ranks[axis]?.get(value) ?? 0;
  return {
    positions: places.map(([t, row, col]) => [begin + rank(0, t), begin + rank(1, row), begin + rank(2, col)]),
    advance: ranks.reduce((most, { size }) => Math.max(most, size), 0),
  };
}

/** Number of positions that a run takes before pruning. */
export function advanceOf(layout: PlacedLayout, run: Run, { hasAxes }: PositionRule): number {
  return hasAxes ? axesOf(layout, run).advance : run.to - run.from;
}

/** Time, row and column of a run's tokens, counted from the run's beginning. */
function axesOf(layout: PlacedLayout, run: Run) {
  const { planeStep = 1 } = layout;
  const grid = layout.grids[run.grid] as Grid;
  const { from: first } = rangesOf(layout)[run.grid] as TokenRange;
  const plane = planeTokens(grid);
  const firstPlane = Math.floor((run.from - first) / plane);
  const lastPlane = Math.floor((run.to - 1 - first) / plane);
  // Step and product are rounded to f32 before the product is truncated, as in torch.
  const timeOf = (at: number): number => Math.trunc(Math.fround((at - firstPlane) * Math.fround(planeStep)));
  return {
    placeOf(token: number): [time: number, row: number, column: number] {
      const at = token - first;
      return [timeOf(Math.floor(at / plane)), Math.floor((at % plane) / grid.w), at % grid.w];
    },
    advance: Math.max(grid.h, grid.w, timeOf(lastPlane) + 1),
  };
}

/** The rank of each value among the distinct values. */
function ranksOf(values: readonly number[]): Map<number, number> {
  const sorted = [...new Set(values)].sort((a, b) => a - b);
  return new Map(sorted.map((value, rank) => [value, rank]));
}
