// Cells on pictures: computed by hand, and compared with the pixels that preprocessing maps to each cell.

import { draw } from '../../src/image/canvas';
import {
  type CellGeometry,
  cellsOfRegion,
  evenCells,
  paddedSquare,
  type Size,
  wholePicture,
} from '../../src/image/cells';
import { padded, resized } from '../../src/models/families/vila_layouts';
import { planes } from './fixtures';

interface InputGrid {
  readonly mode: 'resize' | 'pad';
  readonly size: number;
  readonly patch: number;
  readonly block: number;
}

const resize: InputGrid = { mode: 'resize', size: 280, patch: 14, block: 2 };

function cellGeometry(picture: Size, { mode, ...grid }: InputGrid): CellGeometry {
  return cellsOfRegion(mode === 'pad' ? paddedSquare(picture) : wholePicture(picture), grid);
}

describe('cells of a region', () => {
  it('stretches the grid over the whole picture in mode resize', () => {
    expect(cellGeometry({ width: 560, height: 140 }, resize)).toEqual({
      canvas: { width: 560, height: 140 },
      picture: { left: 0, top: 0 },
      cell: { width: 56, height: 14 },
      covered: { width: 560, height: 140 },
    });
  });

  it.each([
    [
      { width: 300, height: 201 },
      { left: 0, top: 49 },
    ],
    [
      { width: 201, height: 300 },
      { left: 49, top: 0 },
    ],
    [
      { width: 300, height: 300 },
      { left: 0, top: 0 },
    ],
  ])('centers a picture of %j on a square in mode pad', (size, picture) => {
    expect(cellGeometry(size, { ...resize, mode: 'pad' })).toEqual({
      canvas: { width: 300, height: 300 },
      picture,
      cell: { width: 30, height: 30 },
      covered: { width: 300, height: 300 },
    });
  });

  it('leaves out a remainder that fills no patch', () => {
    const { cell, covered } = cellGeometry({ width: 768, height: 384 }, { ...resize, size: 384, block: 1 });
    expect(cell).toEqual({ width: 28, height: 14 });
    // 27 patches of 14 are 378 of 384 pixels.
    expect(covered).toEqual({ width: 756, height: 378 });
  });
});

it('of a tile lie where the tile lies on the picture', () => {
  // The right one of two tiles, each half of the picture: 10 x 10 cells.
  const tile = { left: 200, top: 0, width: 200, height: 300 };
  expect(cellsOfRegion(tile, { size: 280, patch: 14, block: 2 })).toEqual({
    ...{ canvas: { width: 200, height: 300 }, picture: { left: -200, top: 0 } },
    ...{ cell: { width: 20, height: 30 }, covered: { width: 200, height: 300 } },
  });
});

it('that cover a picture evenly', () => {
  expect(evenCells({ width: 300, height: 100 }, 5, 6)).toMatchObject({ cell: { width: 50, height: 20 } });
});

const NORMALIZE = { rescaleFactor: 1 / 255, mean: [0, 0, 0], std: [1, 1, 1] } as const;

/** A black picture that is white inside `cell`. Parts of the cell outside the picture are not drawn. */
function lit(size: { width: number; height: number }, geometry: CellGeometry, row: number, col: number) {
  const { cell, covered, picture } = geometry;
  const data = new Uint8Array(size.width * size.height * 3);
  const inside = (at: number, index: number, step: number, end: number): boolean =>
    at + 0.5 >= index * step && at + 0.5 < Math.min((index + 1) * step, end);
  for (let y = 0; y < size.height; y++)
    for (let x = 0; x < size.width; x++)
      if (
        inside(x + picture.left, col, cell.width, covered.width) &&
        inside(y + picture.top, row, cell.height, covered.height)
      )
        data.fill(255, (y * size.width + x) * 3, (y * size.width + x) * 3 + 3);
  return { data, ...size };
}

/** Mean brightness of each cell of the input. */
function brightness(pixels: Float32Array, { size, patch, block }: InputGrid): number[] {
  const whole = Math.floor(size / patch) * patch;
  const cells = Math.ceil(whole / (patch * block));
  return Array.from({ length: cells * cells }, (_, cell) => {
    const [top, left] = [Math.floor(cell / cells) * patch * block, (cell % cells) * patch * block];
    let sum = 0;
    let count = 0;
    for (let y = top; y < Math.min(top + patch * block, whole); y++)
      for (let x = left; x < Math.min(left + patch * block, whole); x++) {
        sum += pixels[y * size + x] ?? Number.NaN;
        count++;
      }
    return sum / count;
  });
}

describe('the pixels of a cell on the picture are those that the model sees in that cell', () => {
  it.each([
    ['resize', 112, 14, 1, 300, 500],
    ['resize', 112, 14, 2, 500, 240],
    // Seven patches in blocks of two: the last cell of a row is half a block.
    ['pad', 98, 14, 2, 330, 500],
    ['pad', 98, 14, 2, 500, 330],
    // A rest of eight pixels that fills no patch.
    ['pad', 120, 14, 1, 700, 400],
    ['resize', 120, 14, 3, 700, 900],
  ] as const)(
    '%s %i pixels, patches of %i, blocks of %i, a picture of %i x %i',
    (mode, size, patch, block, width, height) => {
      const grid: InputGrid = { mode, size, patch, block };
      const geometry = cellGeometry({ width, height }, grid);
      const cells = Math.ceil(Math.floor(size / patch) / block);
      const shape = {
        tower: { imageSize: size, patchSize: patch, classToken: false },
        block,
        copies: 1,
        before: undefined,
        after: undefined,
      };
      const picture = { width, height };
      const layout = mode === 'pad' ? padded(shape, picture, 'bicubic', [0, 0, 0]) : resized(shape, picture, 'bicubic');
      const middle = Math.floor(cells / 2);
      const last = cells - 1;
      const looked =
        mode === 'resize'
          ? [
              [0, 0],
              [last, middle],
              [middle, last],
            ]
          : [[middle, middle], height > width ? [last, middle] : [middle, last]];
      for (const [row = 0, col = 0] of looked) {
        const shown = draw(lit(picture, geometry, row, col), layout.canvases[0]?.steps ?? []);
        const seen = brightness(planes(shown, NORMALIZE), grid);
        const target = row * cells + col;
        expect(seen[target]).toBeGreaterThan(0.85);
        expect(Math.max(...seen.filter((_, cell) => cell !== target))).toBeLessThan(0.1);
      }
    },
  );
});
