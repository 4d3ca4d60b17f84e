// Positions of visual rows on one axis and on three, against transformers 5.24 `get_vision_position_ids` where nothing is pruned.

import { evenCells } from '../../src/image/cells';
import type { Grid, Run } from '../../src/models/media';
import { advanceOf, type PositionRule, placeRun } from '../../src/session/positions';

const grid = (t: number, h: number, w: number): Grid => {
  return { t, h, w, cells: evenCells({ width: 8, height: 8 }, h, w), frames: Array.from({ length: t }, (_, i) => i) };
};
const ONE: PositionRule = { hasAxes: false, isCompact: false };
const THREE: PositionRule = { hasAxes: true, isCompact: false };
const run = (from: number, to: number, number = 0): Run => ({ grid: number, from, to });

describe('positions of a run', () => {
  it('on one axis: pruned tokens keep theirs, unless kept ones are renumbered', () => {
    const layout = { grids: [grid(1, 2, 3), grid(1, 2, 2)] };
    expect(placeRun(layout, run(6, 10, 1), [7, 9], 100, ONE)).toEqual({ positions: [101, 103], advance: 4 });
    const compact = placeRun(layout, run(6, 10, 1), [7, 9], 100, { ...ONE, isCompact: true });
    expect(compact).toEqual({ positions: [100, 101], advance: 2 });
    expect(advanceOf(layout, run(6, 10, 1), ONE)).toBe(4);
  });

  it('of a picture on three axes: what follows stands at 1 + the larger of its sides', () => {
    const layout = { grids: [grid(1, 2, 3)] };
    const all = placeRun(layout, run(0, 6), [0, 1, 2, 3, 4, 5], 7, THREE);
    expect(all.positions).toEqual([
      [7, 7, 7],
      [7, 7, 8],
      [7, 7, 9],
      [7, 8, 7],
      [7, 8, 8],
      [7, 8, 9],
    ]);
    expect(all.advance).toBe(3);
    expect(placeRun(layout, run(0, 6), [4], 7, THREE)).toEqual({ positions: [[7, 8, 8]], advance: 3 });
    expect(placeRun(layout, run(0, 6), [], 7, THREE).advance).toBe(3);
    expect(advanceOf(layout, run(0, 6), THREE)).toBe(3);
  });

  it.each([
    // arange(4) * 2.5 = [0, 2.5, 5, 7.5], cut; 4 planes of 1 x 2.
    [2.5, [0, 2, 5, 7], 8],
    // 2 tokens per second, frame pairs at 24 per second: 0, 1/6, 1/3, 1/2.
    [1 / 6, [0, 0, 0, 0], 2],
    // (2 · f32(0.7)) = 1.4 and (3 · 0.7) = 2.1 in f32.
    [0.7, [0, 0, 1, 2], 3],
    [undefined, [0, 1, 2, 3], 4],
  ])('of a video whose planes are %p apart', (planeStep, times, advance) => {
    const layout = { grids: [grid(4, 1, 2)], ...(planeStep !== undefined && { planeStep }) };
    const placed = placeRun(layout, run(0, 8), [0, 2, 4, 6], 10, THREE);
    expect(placed.positions).toEqual(times.map((time) => [10 + time, 10, 10]));
    expect(placed.advance).toBe(advance);
  });

  it('of one plane of a video in a run of its own begin anew', () => {
    const layout = { grids: [grid(1, 1, 1), grid(3, 1, 2)], planeStep: 4 };
    expect(placeRun(layout, run(3, 5, 1), [3, 4], 20, THREE)).toEqual({
      positions: [
        [20, 20, 20],
        [20, 20, 21],
      ],
      advance: 2,
    });
  });

  it('of kept tokens on three axes are renumbered on each', () => {
    const layout = { grids: [grid(3, 3, 4)], planeStep: 5 };
    // (t, row, col) = (0, 2, 1), (2, 0, 1), (2, 2, 3)
    const placed = placeRun(layout, run(0, 36), [9, 25, 35], 50, { ...THREE, isCompact: true });
    expect(placed.positions).toEqual([
      [50, 51, 50],
      [51, 50, 50],
      [51, 51, 51],
    ]);
    expect(placed.advance).toBe(2);
  });
});
