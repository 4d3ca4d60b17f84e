// Planes that are drawn together, and the attention of a turn to them.

import { attendedOf, type MediumReport, planesOf } from '../../src/explain/attended';
import { choiceLabel, imageLabel, videoLabel } from '../../src/explain/labels';
import { evenly, sheetAttention, sheetsOf } from '../../src/explain/sheets';
import { cellsOfRegion, evenCells } from '../../src/image/cells';

const START = { media: 0, planes: 0, rows: 0 };
const region = (left: number, top: number, width: number, height: number) =>
  cellsOfRegion({ left, top, width, height }, { size: 28, patch: 14, block: 1 });
const grid = (cells: ReturnType<typeof region>) => ({ t: 1, h: 2, w: 2, frames: [0], cells });
/** Three tiles of a picture whose width no tile divides, and the whole picture. */
const third = 100 / 3;
const tiled: MediumReport = {
  layout: {
    grids: [...[0, 1, 2].map((i) => grid(region(i * third, 0, third, 50))), grid(region(0, 0, 100, 50))],
  },
  kept: Int32Array.of(0, 5, 10, 15),
  salience: Float32Array.from({ length: 16 }, (_, i) => i),
};
const film = (frames: readonly number[]): MediumReport => ({
  layout: { grids: [{ t: frames.length, h: 1, w: 2, frames, cells: evenCells({ width: 8, height: 4 }, 1, 2) }] },
  ...{ kept: Int32Array.of(0), salience: undefined },
});

describe('sheets', () => {
  it('hold the tiles of a picture; an overlapping plane has its own sheet', () => {
    const [tiles, whole, ...others] = sheetsOf(planesOf(tiled, START));
    expect(others).toEqual([]);
    expect(tiles?.parts.map(({ first, left, top }) => [first, Math.round(left), top])).toEqual([
      [0, 0, 0],
      [4, 33, 0],
      [8, 67, 0],
    ]);
    expect([tiles?.canvas.width, tiles?.canvas.height]).toEqual([expect.closeTo(100), 50]);
    expect([[...(tiles?.kept ?? [])], [...(tiles?.salience ?? [])]]).toEqual([[0, 5, 10], [...Array(12).keys()]]);
    expect([[...(whole?.kept ?? [])], [...(whole?.salience ?? [])]]).toEqual([[3], [12, 13, 14, 15]]);
    expect([tiles, whole].map((sheet) => sheet && imageLabel('Image 1', [sheet, sheet], sheet))).toEqual([
      'Image 1: 3 tiles',
      'Image 1: the whole picture',
    ]);
  });

  it('keep the padding around a picture', () => {
    const [one] = sheetsOf(
      planesOf(
        { layout: { grids: [grid(region(0, -25, 100, 100))] }, kept: Int32Array.of(), salience: undefined },
        START,
      ),
    );
    expect(one).toMatchObject({ canvas: { width: 100, height: 100 }, origin: { left: 0, top: 25 } });
    expect(one?.parts).toMatchObject([{ left: 0, top: 0, first: 0 }]);
    expect(one && imageLabel('Image 1', [one], one)).toBe('');
  });

  it('number the attended cells consecutively over their planes', () => {
    const places = [0, 1, 2, 3].map((i) => ({ medium: 0, grid: i, t: 0, row: 1, col: i % 2 }));
    const stats = { media: [tiled], retrieved: [Int32Array.of(1, 3), Int32Array.of(0, 2)] };
    const [turn = []] = attendedOf([{ stats, relevance: [{ scores: Float32Array.of(1, 2, 3, 4), places }] }]);
    const [tiles, whole] = sheetsOf(planesOf(tiled, START)).map((sheet) => sheetAttention(sheet, turn));
    expect([tiles?.retrieved, whole?.retrieved]).toEqual([
      [[5], [0, 10]],
      [[3], []],
    ]);
    expect([...(tiles?.relevance?.[0] ?? [])]).toEqual([0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 3, 0]);
    expect(
      sheetAttention(sheetsOf(planesOf(tiled, { ...START, planes: 4 }))[0] ?? (undefined as never), turn),
    ).toBeUndefined();
  });

  it('hold one plane of a video each, named by the frames that it stands for', () => {
    const sheets = sheetsOf(planesOf(film([0, 4, 8]), START));
    expect(sheets.map((sheet) => videoLabel('Video 2', sheets, sheet, 12))).toEqual([
      'Video 2: frames 1 to 4 of 12, drawn on the first of them',
      'Video 2: frames 5 to 8 of 12, drawn on the first of them',
      'Video 2: frames 9 to 12 of 12, drawn on the first of them',
    ]);
    const single = sheetsOf(planesOf(film([0, 1]), START));
    expect(single.map((sheet) => videoLabel('Video 1', single, sheet, 2))).toEqual([
      'Video 1: frame 1 of 2',
      'Video 1: frame 2 of 2',
    ]);
  });

  it('are at most eight per video, evenly chosen, with a label that says so', () => {
    const numbers = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
    expect(evenly(numbers(8))).toEqual(numbers(8));
    expect(evenly(numbers(16))).toEqual([1, 3, 5, 7, 9, 11, 13, 15]);
    expect(evenly(numbers(9))).toEqual([0, 1, 2, 3, 5, 6, 7, 8]);
    const sheets = sheetsOf(planesOf(film(numbers(20)), START));
    expect(choiceLabel(evenly(sheets), sheets)).toBe(' (8 of 20 are drawn, evenly chosen)');
    expect(choiceLabel(sheets, sheets)).toBe('');
  });
});
