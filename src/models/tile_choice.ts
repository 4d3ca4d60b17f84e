// Chooses how a picture is cut into tiles: the grid of equal tiles whose aspect ratio is closest to the picture's.
// Source: NVlabs/VILA `llava/mm_utils.py` (dynamic_preprocess, find_closest_aspect_ratio), after OpenGVLab/InternVL.

import type { Draw } from '../image/canvas';
import type { Region, Size } from '../image/cells';
import type { ResampleFilter } from '../image/resample';
import type { Canvas } from './media';

/** The most tiles of a picture: a bound far above any published model. */
export const MOST_TILES = 1024;

/** Tiles per row and per column. */
export interface TileGrid {
  readonly cols: number;
  readonly rows: number;
}

/**
 * The grid of min … max tiles whose cols / rows is closest to width / height. Grids are tried in the order of their number of tiles; of
 * equally close grids a later one is chosen if the picture has more than half of its pixels. Grids with equal numbers of tiles are tried in
 * the order of their columns; in Python that order is the iteration order of a set.
 * @param side pixels of a tile
 */
export function closestTileGrid({ width, height }: Size, min: number, max: number, side: number): TileGrid {
  const grids: TileGrid[] = [];
  for (let cols = 1; cols <= max; cols++)
    for (let rows = 1; cols * rows <= max; rows++) if (cols * rows >= min) grids.push({ cols, rows });
  grids.sort((a, b) => a.cols * a.rows - b.cols * b.rows);
  let best: TileGrid = { cols: 1, rows: 1 };
  let least = Number.POSITIVE_INFINITY;
  for (const grid of grids) {
    const difference = Math.abs(width / height - grid.cols / grid.rows);
    const isLarge = width * height > 0.5 * side * side * grid.cols * grid.rows;
    if (difference < least || (difference === least && isLarge)) best = grid;
    least = Math.min(least, difference);
  }
  return best;
}

/** The tiles of a picture that is resized to a grid of them, row by row, and the parts of the picture that they show. */
export function gridTiles(
  picture: Size,
  side: number,
  { cols, rows }: TileGrid,
  filter: ResampleFilter,
): { canvases: Canvas[]; regions: Region[] } {
  const whole: Draw = { step: 'resize', to: { width: cols * side, height: rows * side }, filter };
  const [width, height] = [picture.width / cols, picture.height / rows];
  const places = Array.from({ length: rows * cols }, (_, i) => ({ col: i % cols, row: Math.floor(i / cols) }));
  const square = { width: side, height: side };
  return {
    canvases: places.map(({ col, row }) => ({
      frame: 0,
      steps: [whole, { step: 'crop', to: square, left: col * side, top: row * side }],
    })),
    regions: places.map(({ col, row }) => ({ left: col * width, top: row * height, width, height })),
  };
}
