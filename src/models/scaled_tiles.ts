// Pictures as tiles at several scales, whose features become one map of tokens: the channels of all scales side by side (`dynamic_s2`).
// Source: NVlabs/VILA b760c34 `llava/mm_utils.py`, `llava/model/llava_arch.py` (merge_features_for_dynamic_s2).

import { evenCells, type Size } from '../image/cells';
import { MARKER, type MediumLayout, type RowMap } from './media';
import { squarePatches } from './patches';
import { areaTaps } from './row_maps';
import { cellsOf, type SquareTower } from './squares';
import { closestTileGrid, gridTiles, type TileGrid } from './tile_choice';

/** Scales in tiles per side; the tiles of the last scale follow the picture's aspect ratio. */
export interface Scales {
  readonly sides: readonly number[];
  /** Maximum number of tiles of the last scale. */
  readonly max: number;
  /** The scale to whose size the features of all others are brought. */
  readonly output: number;
}

/**
 * A picture as tiles at several scales. Area averaging brings the feature map of each scale to the size of the output scale;
 * the channels of all scales are concatenated; blocks are formed within each tile of the output map.
 */
export function scaledTiles(
  picture: Size,
  tower: SquareTower,
  block: number,
  { sides, max, output }: Scales,
): MediumLayout {
  const [side, cells] = [tower.imageSize, cellsOf(tower)];
  const least = (sides.at(-1) ?? 1) ** 2;
  const grids = sides.map((k, i): TileGrid => {
    return i === sides.length - 1 ? closestTileGrid(picture, least, max, side) : { cols: k, rows: k };
  });
  const canvases = grids.flatMap((grid) => gridTiles(picture, side, grid, 'bicubic').canvases);
  const { cols, rows } = grids[output] as TileGrid;
  const tokens = Math.ceil(cells / block);
  const [h, w] = [rows * tokens, cols * tokens];
  return {
    kind: 'image',
    canvases,
    patches: squarePatches(canvases.length, cells, tower.patchSize),
    merge: scaleMap(cells, block, grids, { cols, rows }),
    grids: [{ t: 1, h, w, frames: [0], cells: evenCells(picture, h, w) }],
    runs: [{ grid: 0, from: 0, to: h * w }],
    text: MARKER,
  };
}

/** Token (row, col) of the output map: for each patch of its block and each scale, the mean of the scale's patches at that location. */
function scaleMap(cells: number, block: number, scales: readonly TileGrid[], out: TileGrid): RowMap {
  const perTile = Math.ceil(cells / block);
  const [height, width] = [out.rows * cells, out.cols * cells];
  const starts: number[] = [];
  let patches = 0;
  for (const { cols, rows } of scales) {
    starts.push(patches);
    patches += cols * rows * cells * cells;
  }
  /** The input row of a patch in the map of a scale. */
  const patchRow = (scale: number, y: number, x: number): number => {
    const { cols } = scales[scale] as TileGrid;
    const tile = Math.floor(y / cells) * cols + Math.floor(x / cells);
    return (starts[scale] as number) + (tile * cells + (y % cells)) * cells + (x % cells);
  };
  const vertical = scales.map(({ rows }) => areaTaps(rows * cells, height));
  const horizontal = scales.map(({ cols }) => areaTaps(cols * cells, width));
  const most = (axes: readonly (readonly number[])[][]): number =>
    axes.flat().reduce((longest, { length }) => Math.max(longest, length), 0);
  const taps = most(vertical) * most(horizontal);
  const [parts, tokens] = [block * block * scales.length, out.rows * out.cols * perTile * perTile];
  const from = new Int32Array(tokens * parts * taps).fill(-1);
  const weights = new Float32Array(tokens * parts * taps);
  for (let row = 0, at = 0; row < out.rows * perTile; row++)
    for (let col = 0; col < out.cols * perTile; col++)
      for (let part = 0; part < block * block; part++) {
        const inTile = [
          (row % perTile) * block + Math.floor(part / block),
          (col % perTile) * block + (part % block),
        ] as const;
        const isPadding = inTile[0] >= cells || inTile[1] >= cells;
        const y = Math.floor(row / perTile) * cells + inTile[0];
        const x = Math.floor(col / perTile) * cells + inTile[1];
        for (let scale = 0; scale < scales.length; scale++, at += taps) {
          if (isPadding) continue;
          const [ys, xs] = [vertical[scale]?.[y] ?? [], horizontal[scale]?.[x] ?? []];
          const sources = ys.flatMap((sy) => xs.map((sx) => patchRow(scale, sy, sx)));
          from.set(sources, at);
          weights.fill(1 / sources.length, at, at + sources.length);
        }
      }
  return { rows: tokens, parts, taps, from, weights };
}
