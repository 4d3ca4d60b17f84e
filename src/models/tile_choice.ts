// Chooses how a picture is cut into tiles: a grid of equal tiles, whose aspect ratio is closest to the picture's or which covers it at its size.
// Source: NVlabs/VILA `llava/mm_utils.py` (dynamic_preprocess, find_closest_aspect_ratio), after OpenGVLab/InternVL; transformers 5.24
// `image_processing_pil_smolvlm.py` (resize_for_vision_encoder).

import type { Draw, Rgb } from '../image/canvas';
import { paddedSquare, type Region, type Size, wholePicture } from '../image/cells';
import type { ResampleFilter } from '../image/resample';
import type { ConfigReader } from '../json';
import type { Canvas } from './media';

/** The most tiles of a picture: a bound far above any published model. */
export const MOST_TILES = 1024;

/** Tiles per row and per column. */
export interface TileGrid {
  readonly cols: number;
  readonly rows: number;
}

/** The least and most tiles of a picture, without the whole picture. */
export interface TileRange {
  readonly min: number;
  readonly max: number;
}

/** The range that two keys of a config name, from 1 to 12 if absent. @throws SparseVilaError `ERR_CONFIG_INVALID` */
export function tileRange(config: ConfigReader, [least, most]: readonly [least: string, most: string]): TileRange {
  const [min, max] = [config.size(least, 1), config.size(most, 12)];
  if (max < min || max > MOST_TILES) throw config.wrong(most, `from ${least} (${min}) to ${MOST_TILES}`);
  return { min, max };
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

/** The grid that covers a picture at its size: its longer side rounded up to whole tiles, then the other side in the aspect ratio. */
export function coveringGrid({ width, height }: Size, side: number): TileGrid {
  const ratio = width / height;
  const tiles = (pixels: number): number => Math.ceil(pixels / side);
  if (width >= height) {
    const cols = tiles(width);
    return { cols, rows: tiles(Math.trunc((cols * side) / ratio)) };
  }
  const rows = tiles(height);
  return { cols: tiles(Math.trunc(rows * side * ratio)), rows };
}

/** Canvases, and the parts of the picture that they show. */
export interface Tiles {
  readonly canvases: readonly Canvas[];
  readonly regions: readonly Region[];
}

/**
 * The tiles of a picture that is resized to a grid of them, row by row, and the parts of the picture that they show.
 * @param before what is drawn before the resizing
 */
export function gridTiles(
  picture: Size,
  side: number,
  { cols, rows }: TileGrid,
  filter: ResampleFilter,
  before: readonly Draw[] = [],
): Tiles {
  const whole: Draw = { step: 'resize', to: { width: cols * side, height: rows * side }, filter };
  const [width, height] = [picture.width / cols, picture.height / rows];
  const places = Array.from({ length: rows * cols }, (_, i) => ({ col: i % cols, row: Math.floor(i / cols) }));
  const square = { width: side, height: side };
  return {
    canvases: places.map(({ col, row }) => ({
      frame: 0,
      steps: [...before, whole, { step: 'crop', to: square, left: col * side, top: row * side }],
    })),
    regions: places.map(({ col, row }) => ({ left: col * width, top: row * height, width, height })),
  };
}

/** The tiles of the closest grid of min … max tiles, followed by the whole picture as one square if there is more than one tile. */
export function tilesAndWhole(picture: Size, side: number, { min, max }: TileRange, filter: ResampleFilter): Tiles {
  const tiles = gridTiles(picture, side, closestTileGrid(picture, min, max, side), filter);
  if (tiles.canvases.length === 1) return tiles;
  const { canvases, regions } = wholeSquare(picture, side, filter);
  return { canvases: [...tiles.canvases, ...canvases], regions: [...tiles.regions, ...regions] };
}

/** The whole picture resized to one square of `side` pixels, regardless of its aspect ratio. */
export function wholeSquare(picture: Size, side: number, filter: ResampleFilter): Tiles {
  const resize: Draw = { step: 'resize', to: { width: side, height: side }, filter };
  return { canvases: [{ frame: 0, steps: [resize] }], regions: [wholePicture(picture)] };
}

/** The picture centered on a square of `color`, which is then resized to `side` pixels. Source: VILA's and LLaVA's `expand2square`. */
export function centeredSquare(picture: Size, side: number, filter: ResampleFilter, color: Rgb): Tiles {
  const region = paddedSquare(picture);
  const { left, top, ...to } = region;
  const pad: Draw = { step: 'pad', to, left: 0 - left, top: 0 - top, color };
  const resize: Draw = { step: 'resize', to: { width: side, height: side }, filter };
  return { canvases: [{ frame: 0, steps: [pad, resize] }], regions: [region] };
}
