// Pictures of any resolution in tiles (LLaVA-NeXT, LLaVA-OneVision): the whole picture as one square, then the tiles of the best-fitting
// resolution as one map of tokens, without rows and columns that show only padding; a learned newline row follows each row of the map.
// Source: transformers 5.24 `image_processing_utils.py` (select_best_resolution, get_patch_output_size), `modeling_llava_next.py` and
// `modeling_llava_onevision.py` (unpad_image, pack_image_features).

import type { Draw } from '../image/canvas';
import { evenCells, type Region, type Size, wholePicture } from '../image/cells';
import type { ResampleFilter } from '../image/resample';
import type { ConfigReader } from '../json';
import type { Canvas, Grid, MediumLayout, Run } from './media';
import { MARKER } from './media';
import { squarePatches } from './patches';
import { bilinearRows, selectRows } from './row_maps';
import { cellsOf, squares } from './squares';
import { MOST_TILES } from './tile_choice';
import type { TowerShape } from './tower_config';

export interface Anyres {
  readonly tower: TowerShape;
  /** Resolutions in pixels, multiples of the tower's side. */
  readonly resolutions: readonly Size[];
  readonly filter: ResampleFilter;
  /** Rows and columns of a map of h × w tokens after the projector; absent: unchanged. */
  readonly shrink?: (h: number, w: number) => Pick<MapPart, 'h' | 'w'>;
}

/** A range of rows and columns of the map of all tiles. */
interface MapPart {
  readonly top: number;
  readonly left: number;
  readonly h: number;
  readonly w: number;
}

/**
 * `image_grid_pinpoints` of model and processor, [height, width] in pixels, which must be equal.
 * @throws SparseVilaError `ERR_CONFIG_INVALID`, `ERR_CONFIG_UNSUPPORTED`
 */
export function resolutionsOf(
  root: ConfigReader,
  images: ConfigReader,
  side: number,
  fallback: readonly (readonly number[])[],
): Size[] {
  const key = 'image_grid_pinpoints';
  const given: unknown = root.json[key] ?? fallback;
  const isPoint = (point: unknown): point is [number, number] =>
    Array.isArray(point) &&
    point.length === 2 &&
    point.every((one) => Number.isInteger(one) && one > 0 && one % side === 0);
  if (!Array.isArray(given) || given.length === 0 || !given.every(isPoint))
    throw root.wrong(key, `a list of heights and widths, multiples of the tower's image_size ${side}`);
  if (given.some(([height, width]) => (height / side) * (width / side) > MOST_TILES))
    throw root.wrong(key, `resolutions of at most ${MOST_TILES} tiles of ${side} pixels`);
  if (JSON.stringify(images.json[key] ?? fallback) !== JSON.stringify(given))
    throw images.unsupported(key, 'those of config.json');
  return given.map(([height, width]) => ({ height, width }));
}

/** The layout of a picture that is shown whole and in tiles. */
export function anyres(picture: Size, { tower, resolutions, filter, shrink }: Anyres): MediumLayout {
  const side = tower.imageSize;
  const cells = cellsOf(tower);
  const best = bestResolution(picture, resolutions);
  const [rows, cols] = [best.height / side, best.width / side];
  const to = fittedSize(picture, best);
  const [left, top] = [Math.floor((best.width - to.width) / 2), Math.floor((best.height - to.height) / 2)];
  const map = unpadded(picture, rows * cells, cols * cells);
  const { merge, grids } = squares([wholePicture(picture)], tower);
  // Each canvas begins with the class row, if the tower has one.
  const first = Number(tower.classToken);
  const tileRows = Array.from({ length: map.h * map.w }, (_, i) => {
    const [y, x] = [map.top + Math.floor(i / map.w), map.left + (i % map.w)];
    const tile = Math.floor(y / cells) * cols + Math.floor(x / cells);
    return (1 + tile) * (cells * cells + first) + first + (y % cells) * cells + (x % cells);
  });
  const whole: Draw = { step: 'resize', to: { width: side, height: side }, filter };
  const inset = { width: best.width, height: best.height, left, top };
  const region = regionOf(picture, { to, inset, map, cell: side / cells });
  const { h, w } = shrink?.(map.h, map.w) ?? map;
  return {
    kind: 'image',
    canvases: [{ frame: 0, steps: [whole] }, ...tileCanvases({ rows, cols, side }, to, inset, filter)],
    patches: squarePatches(1 + rows * cols, cells, tower.patchSize),
    merge: selectRows([...merge.from, ...tileRows]),
    ...((h !== map.h || w !== map.w) && { pool: bilinearRows({ t: 1, h: map.h, w: map.w }, { h, w }, merge.rows) }),
    ...rowRuns(grids[0] as Grid, { t: 1, h, w, frames: [0], cells: evenCells(region, h, w) }),
  };
}

/** A run for the base, and one for each row of the map, which newlines follow. For a very long picture only newlines may remain, or not even those. */
function rowRuns(base: Grid, map: Grid): Pick<MediumLayout, 'grids' | 'runs' | 'text'> {
  const first = base.h * base.w;
  const isEmpty = map.h * map.w === 0;
  const runs: Run[] = [{ grid: 0, from: 0, to: first, ...(isEmpty && map.h > 0 && { newlines: map.h }) }];
  for (let row = 0; row < map.h && !isEmpty; row++)
    runs.push({ grid: 1, from: first + row * map.w, to: first + (row + 1) * map.w, newlines: 1 });
  return { grids: isEmpty ? [base] : [base, map], runs, text: MARKER.repeat(runs.length) };
}

/** The resolution that preserves most of the picture's pixels; of equal ones the one with the least padding. */
function bestResolution({ width, height }: Size, resolutions: readonly Size[]): Size {
  let best = resolutions[0] as Size;
  let [most, least] = [0, Number.POSITIVE_INFINITY];
  for (const to of resolutions) {
    const scale = Math.min(to.width / width, to.height / height);
    const shown = Math.min(Math.trunc(width * scale) * Math.trunc(height * scale), width * height);
    const wasted = to.width * to.height - shown;
    if (shown < most || (shown === most && wasted >= least)) continue;
    [most, least, best] = [shown, wasted, to];
  }
  return best;
}

/** The size of a picture resized to fit a resolution with its aspect ratio kept. */
function fittedSize({ width, height }: Size, to: Size): Size {
  const [x, y] = [to.width / width, to.height / height];
  return x < y
    ? { width: to.width, height: Math.min(Math.ceil(height * x), to.height) }
    : { width: Math.min(Math.ceil(width * y), to.width), height: to.height };
}

/** The rows or columns of a map of h × w tokens that show the picture and not padding. */
function unpadded({ width, height }: Size, h: number, w: number): MapPart {
  // Python's int(round(x, 7)).
  const whole = (x: number): number => Math.trunc(Number(x.toFixed(7)));
  if (width / height > w / h) {
    const top = Math.floor((h - whole(height * (w / width))) / 2);
    return { top, left: 0, h: h - 2 * top, w };
  }
  const left = Math.floor((w - whole(width * (h / height))) / 2);
  return { top: 0, left, h, w: w - 2 * left };
}

/** Tiles in raster order of the resized picture at its place, with black around it. */
function tileCanvases(
  { rows, cols, side }: { readonly rows: number; readonly cols: number; readonly side: number },
  to: Size,
  { left, top }: Region,
  filter: ResampleFilter,
): Canvas[] {
  const fit: Draw = { step: 'resize', to, filter };
  const square = { width: side, height: side };
  return Array.from({ length: rows * cols }, (_, i) => {
    const [x, y] = [(i % cols) * side - left, Math.floor(i / cols) * side - top];
    return { frame: 0, steps: [fit, { step: 'crop', to: square, left: x, top: y }] };
  });
}

/** The part of the picture that the unpadded map shows; `cell`: pixels of the resolution per token. */
function regionOf(
  picture: Size,
  { to, inset, map, cell }: { readonly to: Size; readonly inset: Region; readonly map: MapPart; readonly cell: number },
): Region {
  const [x, y] = [picture.width / to.width, picture.height / to.height];
  return {
    left: (map.left * cell - inset.left) * x,
    top: (map.top * cell - inset.top) * y,
    width: map.w * cell * x,
    height: map.h * cell * y,
  };
}
