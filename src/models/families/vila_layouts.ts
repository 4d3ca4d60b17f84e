// The layouts of VILA and NVILA for pictures and videos: one square, tiles, several scales, or frames with temporal pooling.
// Source: NVlabs/VILA b760c34 `llava/mm_utils.py`, `llava/model/llava_arch.py`, `llava/model/encoders`.

import type { Draw, Rgb } from '../../image/canvas';
import type { Size } from '../../image/cells';
import { meanColor, type PreprocessorConfig } from '../../image/preprocessor_config';
import type { ResampleFilter } from '../../image/resample';
import type { ConfigReader } from '../../json';
import { MARKER, type MediumLayout, type MediumSize, type RowMap } from '../media';
import type { Plan } from '../plan';
import { type Pool, pooledFrames } from '../pooled_frames';
import { type Scales, scaledTiles } from '../scaled_tiles';
import { type SquareTower, squares } from '../squares';
import { centeredSquare, type TileRange, type Tiles, tileRange, tilesAndWhole, wholeSquare } from '../tile_choice';
import { type EncoderTexts, encoderTexts, type Pictures } from './vila_settings';

/** Settings that all layouts of a checkpoint share. Lengths are pixels. */
export interface Shape extends EncoderTexts {
  readonly tower: SquareTower;
  /** Number of patches per side of the block that becomes one token. */
  readonly block: number;
  /** How many times a picture's features are repeated side by side: the number of scales of `dynamic_s2` if it is shown at one scale only, else 1. */
  readonly copies: number;
}

/** A layout with the encoder's texts around each run. */
function withTexts({ before, after }: Shape, layout: MediumLayout): MediumLayout {
  const texts = { ...(before === undefined ? {} : { before }), ...(after === undefined ? {} : { after }) };
  return { ...layout, runs: layout.runs.map(({ grid, from, to }) => ({ grid, from, to, ...texts })) };
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
  const { merge, ...rest } = squares(regions, shape.tower, shape.block);
  return withTexts(shape, { ...rest, kind: 'image', canvases, text, merge: repeated(merge, shape.copies) });
}

/** The picture resized to the tower's square input, regardless of its aspect ratio. */
export function resized(shape: Shape, picture: Size, filter: ResampleFilter): MediumLayout {
  return squareLayout(shape, wholeSquare(picture, shape.tower.imageSize, filter), MARKER);
}

/** The picture centered on a square of `color`, then resized. */
export function padded(shape: Shape, picture: Size, filter: ResampleFilter, color: Rgb): MediumLayout {
  return squareLayout(shape, centeredSquare(picture, shape.tower.imageSize, filter, color), MARKER);
}

/** `dynamic`: tiles in the picture's aspect ratio, followed by the whole picture if there is more than one tile. A line break follows each. */
export function tiled(shape: Shape, picture: Size, range: TileRange): MediumLayout {
  const tiles = tilesAndWhole(picture, shape.tower.imageSize, range, 'bicubic');
  return squareLayout(shape, tiles, `${MARKER}\n`.repeat(tiles.canvases.length));
}

/** `dynamic_s2`: the picture as tiles at several scales. */
export function scaled(shape: Shape, picture: Size, scales: Scales): MediumLayout {
  return withTexts(shape, scaledTiles(picture, shape.tower, shape.block, scales));
}

/** A video: one square per frame, projected and then pooled. @throws SparseVilaError `ERR_VIDEO` */
export function videoLayout(
  shape: Shape,
  size: MediumSize,
  steps: readonly Draw[],
  pools: readonly Pool[],
): MediumLayout {
  const { merge, ...rest } = pooledFrames(size, steps, { tower: shape.tower, block: shape.block, pools });
  return withTexts(shape, { ...rest, merge: repeated(merge, shape.copies) });
}

/** The layouts of a checkpoint. `pictures`: how one picture in a turn is shown; undefined where the processor alone resizes. */
export function layoutOf(
  root: ConfigReader,
  decoderType: string,
  base: Omit<Shape, keyof EncoderTexts>,
  {
    pictures,
    pixels,
    scales,
    pools,
  }: {
    pictures: Pictures | undefined;
    pixels: PreprocessorConfig;
    scales: Scales | undefined;
    pools: readonly Pool[];
  },
): Plan['layout'] {
  const picture: Shape = { ...base, ...encoderTexts(root, 'image_encoder', decoderType) };
  const frame: Shape = { ...base, ...encoderTexts(root, 'video_encoder', decoderType) };
  const range = pictures === 'dynamic' ? tileRange(root, ['min_tiles', 'max_tiles']) : undefined;
  const color = meanColor(pixels);
  // Where VILA resizes, the filter is bicubic, Pillow's default; where it leaves resizing to the processor, the processor's filter applies.
  const filter = pixels.resample;
  const one = (size: MediumSize): MediumLayout =>
    pictures === 'pad' ? padded(picture, size, filter, color) : resized(picture, size, filter);
  const frameSteps = (size: MediumSize) => one(size).canvases[0]?.steps ?? [];
  return (size, { media }) => {
    if (size.kind === 'video') return videoLayout(frame, size, frameSteps(size), pools);
    // Each of several pictures in one turn is shown as one square.
    if (media === 1 && range !== undefined) return tiled(picture, size, range);
    if (media === 1 && scales !== undefined) return scaled(picture, size, scales);
    return one(size);
  };
}
