// Videos whose tokens are means over frames, rows and columns, taken after the projector; several poolings may follow one another.
// Source: NVlabs/VILA b760c34 `llava/model/encoders/video/tsp.py`.

import { SparseVilaError } from '../errors';
import type { Draw } from '../image/canvas';
import { evenCells } from '../image/cells';
import { type Grid, MARKER, type MediumLayout, type MediumSize, type RowMap, type Run } from './media';
import { cellsOf, frameSquares, type SquareTower } from './squares';

/** Number of frames, rows and columns that are averaged into one token of a video; [1, 1, 1] for no pooling. */
export type Pool = readonly [t: number, h: number, w: number];

/**
 * A video: one square per frame, projected and then pooled; the planes of each pool follow in the order of time.
 * @throws SparseVilaError `ERR_VIDEO` for frames that do not fill the last plane
 */
export function pooledFrames(
  size: MediumSize,
  steps: readonly Draw[],
  { tower, block, pools }: { readonly tower: SquareTower; readonly block: number; readonly pools: readonly Pool[] },
): MediumLayout {
  const { frames } = size;
  const tokens = Math.ceil(cellsOf(tower) / block);
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
      return { grid, from, to: first };
    }),
  );
  const { canvases, patches, merge } = frameSquares(size, steps, tower, block);
  const isPooled = pools.length > 1 || pools.some((pool) => pool.some((size) => size !== 1));
  return {
    kind: 'video',
    canvases,
    patches,
    merge,
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
