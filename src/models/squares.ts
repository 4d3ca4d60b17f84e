// Media on square canvases of the tower's size: tiles of a picture, or frames of a video. Blocks of patches become tokens.

import type { Draw } from '../image/canvas';
import { cellsOfRegion, type Region, wholePicture } from '../image/cells';
import type { Canvas, MediumLayout, MediumSize } from './media';
import { squarePatches } from './patches';
import { blockRows, joinMaps } from './row_maps';
import type { TowerShape } from './tower_config';

/** A tower as far as its canvases depend on it. */
export type SquareTower = Pick<TowerShape, 'imageSize' | 'patchSize' | 'classToken'>;

type Squares = Pick<MediumLayout, 'patches' | 'merge' | 'grids' | 'runs'>;

/** The number of patches per side of a canvas. */
export const cellsOf = ({ imageSize, patchSize }: SquareTower): number => Math.floor(imageSize / patchSize);

/**
 * One canvas for each region, which is a part of the picture; each canvas has a grid and a run.
 * @param block patches per side of the block that becomes a token; zeros fill the blocks at the edges where it does not divide a canvas
 */
export function squares(regions: readonly Region[], tower: SquareTower, block = 1): Squares {
  const { imageSize: size, patchSize: patch, classToken } = tower;
  const cells = cellsOf(tower);
  const side = Math.ceil(cells / block);
  const [tokens, first] = [side * side, Number(classToken)];
  // The class row precedes the patches of each canvas.
  const one = blockRows(cells, cells, block, (row, col) => first + row * cells + col);
  return {
    patches: squarePatches(regions.length, cells, patch),
    merge: joinMaps(
      regions.map(() => one),
      regions.map((_, i) => i * (cells * cells + first)),
    ),
    grids: regions.map((region) => {
      return { t: 1, h: side, w: side, frames: [0], cells: cellsOfRegion(region, { size, patch, block }) };
    }),
    runs: regions.map((_, grid) => ({ grid, from: grid * tokens, to: (grid + 1) * tokens })),
  };
}

/** One canvas for each frame of a video, drawn by `steps`; the frames are the planes of one grid, and each has a run. */
export function frameSquares(
  size: MediumSize,
  steps: readonly Draw[],
  tower: SquareTower,
  block = 1,
): Squares & Pick<MediumLayout, 'canvases'> {
  const frames = Array.from({ length: size.frames }, (_, frame) => frame);
  const { grids, runs, ...rest } = squares(
    frames.map(() => wholePicture(size)),
    tower,
    block,
  );
  return {
    ...rest,
    canvases: frames.map((frame): Canvas => ({ frame, steps })),
    grids: grids.slice(0, 1).map((grid) => ({ ...grid, t: size.frames, frames })),
    runs: runs.map((run) => ({ ...run, grid: 0 })),
  };
}
