// The layouts of VILA and NVILA for pictures and videos: one square, tiles, several scales, or frames with temporal pooling.
// Source: NVlabs/VILA b760c34 `llava/mm_utils.py`, `llava/model/llava_arch.py` (merge_features_for_dynamic_s2), `encoders/video/tsp.py`.

import { SparseVilaError } from '../../errors';
import type { Draw, Rgb } from '../../image/canvas';
import { evenCells, paddedSquare, type Size, wholePicture } from '../../image/cells';
import type { ResampleFilter } from '../../image/resample';
import { type Grid, MARKER, type MediumLayout, type MediumSize, type RowMap, type Run } from '../media';
import { squarePatches } from '../patches';
import { areaTaps } from '../row_maps';
import { cellsOf, frameSquares, type SquareTower, squares } from '../squares';
import { closestTileGrid, gridTiles, type TileGrid, type TileRange, type Tiles, tilesAndWhole } from '../tile_choice';

/** Settings that all layouts of a checkpoint share. Lengths are pixels. */
export interface Shape {
  readonly tower: SquareTower;
  /** Number of patches per side of the block that becomes one token. */
  readonly block: number;
  /** How many times a picture's features are repeated side by side: the number of scales of `dynamic_s2` if it is shown at one scale only, else 1. */
  readonly copies: number;
  /** Texts that the image encoder puts around each picture, tile or frame. */
  readonly before: string | undefined;
  readonly after: string | undefined;
}

/** Resizing to the tower's square input. */
const toSquare = ({ tower: { imageSize } }: Shape, filter: ResampleFilter): Draw => ({
  step: 'resize',
  to: { width: imageSize, height: imageSize },
  filter,
});

const tokensPerSide = ({ tower, block }: Shape): number => Math.ceil(cellsOf(tower) / block);

function run({ before, after }: Shape, grid: number, from: number, to: number): Run {
  return { grid, from, to, ...(before === undefined ? {} : { before }), ...(after === undefined ? {} : { after }) };
}

/** Each part of a row several times, side by side. */
function repeated(map: RowMap, copies: number): RowMap {
  if (copies === 1) return map;
  const from = Int32Array.from(
    { length: map.from.length * copies },
    (_, i) => map.from[Math.floor(i / copies)] as number,
  );
  return { ...map, parts: map.parts * copies, from };
}

/** Square canvases that become one grid each; `regions` are the parts of the picture that they show. */
function squareLayout(shape: Shape, { canvases, regions }: Tiles, text: string): MediumLayout {
  const { merge, runs, ...rest } = squares(regions, shape.tower, shape.block);
  return {
    ...{ ...rest, kind: 'image', canvases, text },
    merge: repeated(merge, shape.copies),
    runs: runs.map(({ grid, from, to }) => run(shape, grid, from, to)),
  };
}

/** The picture resized to the tower's square input, regardless of its aspect ratio. */
export function resized(shape: Shape, picture: Size, filter: ResampleFilter): MediumLayout {
  const canvas = { frame: 0, steps: [toSquare(shape, filter)] };
  return squareLayout(shape, { canvases: [canvas], regions: [wholePicture(picture)] }, MARKER);
}

/** The picture centered on a square of `color`, then resized. VILA's expand2square. */
export function padded(shape: Shape, picture: Size, filter: ResampleFilter, color: Rgb): MediumLayout {
  const { left, top, width, height } = paddedSquare(picture);
  const pad: Draw = { step: 'pad', to: { width, height }, left: 0 - left, top: 0 - top, color };
  const canvas = { frame: 0, steps: [pad, toSquare(shape, filter)] };
  return squareLayout(shape, { canvases: [canvas], regions: [{ left, top, width, height }] }, MARKER);
}

/** `dynamic`: tiles in the picture's aspect ratio, followed by the whole picture if there is more than one tile. A line break follows each. */
export function tiled(shape: Shape, picture: Size, range: TileRange): MediumLayout {
  const tiles = tilesAndWhole(picture, shape.tower.imageSize, range, 'bicubic');
  return squareLayout(shape, tiles, `${MARKER}\n`.repeat(tiles.canvases.length));
}

/** Scales of `dynamic_s2`, in tiles per side; the tiles of the last scale follow the picture's aspect ratio. */
export interface Scales {
  readonly sides: readonly number[];
  /** Maximum number of tiles of the last scale. */
  readonly max: number;
  /** The scale to whose size the features of all others are brought. */
  readonly output: number;
}

/**
 * `dynamic_s2`: the picture as tiles at several scales. Area averaging brings the feature map of each scale to the size of the output scale;
 * the channels of all scales are concatenated; blocks are formed within each tile of the output map.
 */
export function scaled(shape: Shape, picture: Size, { sides, max, output }: Scales): MediumLayout {
  const { tower, block } = shape;
  const [side, cells] = [tower.imageSize, cellsOf(tower)];
  const least = (sides.at(-1) ?? 1) ** 2;
  const grids = sides.map((k, i): TileGrid => {
    return i === sides.length - 1 ? closestTileGrid(picture, least, max, side) : { cols: k, rows: k };
  });
  const canvases = grids.flatMap((grid) => gridTiles(picture, side, grid, 'bicubic').canvases);
  const { cols, rows } = grids[output] as TileGrid;
  const tokens = tokensPerSide(shape);
  const [h, w] = [rows * tokens, cols * tokens];
  const count = h * w;
  return {
    kind: 'image',
    canvases,
    patches: squarePatches(canvases.length, cells, tower.patchSize),
    merge: scaleMap(cells, block, grids, { cols, rows }),
    grids: [{ t: 1, h, w, frames: [0], cells: evenCells(picture, h, w) }],
    runs: [run(shape, 0, 0, count)],
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

/** Number of frames, rows and columns that are averaged into one token of a video; [1, 1, 1] for no pooling. */
export type Pool = readonly [t: number, h: number, w: number];

/**
 * A video: one square per frame, projected and then pooled; the planes of each pool follow in the order of time.
 * @throws SparseVilaError `ERR_VIDEO` for frames that do not fill the last plane
 */
export function videoLayout(
  shape: Shape,
  size: MediumSize,
  frameSteps: readonly Draw[],
  pools: readonly Pool[],
): MediumLayout {
  const { frames } = size;
  const tokens = tokensPerSide(shape);
  for (const [t] of pools) {
    if (frames % t === 0) continue;
    throw new SparseVilaError(
      'ERR_VIDEO',
      `Expected a number of frames that ${t} divides, since the model takes the mean of as many, received ${frames}.`,
    );
  }
  const grids = pools.map(([t, h, w]): Grid => {
    const [rows, cols] = [tokens / h, tokens / w];
    const planes = frames / t;
    return {
      t: planes,
      h: rows,
      w: cols,
      frames: Array.from({ length: planes }, (_, plane) => plane * t),
      cells: evenCells(size, rows, cols),
    };
  });
  let first = 0;
  const runs = grids.flatMap(({ t, h, w }, grid) =>
    Array.from({ length: t }, (): Run => {
      const from = first;
      first += h * w;
      return run(shape, grid, from, first);
    }),
  );
  const { canvases, patches, merge } = frameSquares(size, frameSteps, shape.tower, shape.block);
  const isPooled = pools.length > 1 || pools.some((pool) => pool.some((size) => size !== 1));
  return {
    kind: 'video',
    canvases,
    patches,
    merge: repeated(merge, shape.copies),
    ...(isPooled ? { pool: poolMap(frames, tokens, pools) } : {}),
    grids,
    runs,
    text: MARKER.repeat(runs.length),
  };
}

function poolMap(frames: number, side: number, pools: readonly Pool[]): RowMap {
  const taps = pools.reduce((most, [t, h, w]) => Math.max(most, t * h * w), 0);
  const from: number[] = [];
  const weights: number[] = [];
  for (const [t, h, w] of pools)
    for (let plane = 0; plane < frames / t; plane++)
      for (let row = 0; row < side / h; row++)
        for (let col = 0; col < side / w; col++)
          for (let tap = 0; tap < taps; tap++) {
            const isThere = tap < t * h * w;
            const frame = plane * t + Math.floor(tap / (h * w));
            const [y, x] = [row * h + (Math.floor(tap / w) % h), col * w + (tap % w)];
            from.push(isThere ? (frame * side + y) * side + x : -1);
            weights.push(isThere ? 1 / (t * h * w) : 0);
          }
  return { rows: from.length / taps, parts: 1, taps, from: Int32Array.from(from), weights: Float32Array.from(weights) };
}
