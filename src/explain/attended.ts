// Turns the statistics of a conversation into cells to draw: for each plane of a grid its kept cells and salience, for each turn and plane the
// cells that each layer attended. A plane is an image, a tile, a thumbnail or a frame. Works on numbers only.

import { SparseVilaError } from '../errors';
import type { CellGeometry } from '../image/cells';
import type { LayerRelevance } from '../sparsity/observed';
import type { Grid } from './canvas';

/** The part of a turn's statistics that is used. */
export interface TurnReport {
  readonly media: readonly MediumReport[];
  readonly retrieved: readonly Int32Array[] | undefined;
}

export interface MediumReport {
  readonly layout: {
    readonly grids: readonly {
      readonly t: number;
      readonly h: number;
      readonly w: number;
      readonly cells: CellGeometry;
      readonly frames: readonly number[];
    }[];
  };
  readonly kept: Int32Array;
  readonly salience: Float32Array | undefined;
}

/** One plane of a grid of a medium, with its cells as raster indices. */
export interface Plane {
  /** Index among all planes of the conversation. */
  readonly index: number;
  /** Index of the medium in the conversation. */
  readonly medium: number;
  /** Index of the grid in its medium, and of the plane in its grid. */
  readonly gridIndex: number;
  readonly plane: number;
  readonly grid: Grid;
  readonly cells: CellGeometry;
  /** The frame that it shows. */
  readonly frame: number;
  readonly kept: Int32Array;
  readonly salience: Float32Array | undefined;
  /** Range of its kept tokens among all kept tokens of the conversation: from … to - 1. */
  readonly rows: { readonly from: number; readonly to: number };
}

/** One plane in one turn. */
export interface PlaneAttention {
  /** Index of the plane among all planes of the conversation. */
  readonly plane: number;
  /** Per layer, the attended cells, ascending; undefined if every layer attends every kept cell. */
  readonly retrieved: readonly (readonly number[])[] | undefined;
  /** Per layer, the relevance of each cell; 0 if it was pruned. Undefined if it was not recorded. */
  readonly relevance: readonly Float32Array[] | undefined;
}

/** Numbers of media, planes and kept tokens in a conversation before a medium. */
export interface Before {
  readonly media: number;
  readonly planes: number;
  readonly rows: number;
}

/** The planes of one medium of a conversation. */
export function planesOf({ layout, kept, salience }: MediumReport, before: Before): Plane[] {
  const planes: Plane[] = [];
  let first = 0;
  let row = before.rows;
  for (const [gridIndex, { t, h, w, cells, frames }] of layout.grids.entries())
    for (let plane = 0; plane < t; plane++) {
      const own = kept.filter((token) => token >= first && token < first + h * w).map((token) => token - first);
      planes.push({
        ...{
          index: before.planes + planes.length,
          medium: before.media,
          gridIndex,
          plane,
          grid: { rows: h, cols: w },
          cells,
          frame: frames[plane] ?? 0,
          kept: own,
        },
        salience: salience?.subarray(first, first + h * w),
        rows: { from: row, to: row + own.length },
      });
      first += h * w;
      row += own.length;
    }
  return planes;
}

/**
 * The attention of each turn to every plane that existed by then.
 * @param turns all turns of a conversation that was never rewound, in order
 * @throws SparseVilaError `ERR_OPTION_INVALID` if a turn attended rows that belong to no plane of these turns
 */
export function attendedOf(
  turns: readonly { readonly stats: TurnReport; readonly relevance?: readonly LayerRelevance[] | undefined }[],
): PlaneAttention[][] {
  const planes: Plane[] = [];
  let [rows, media] = [0, 0];
  return turns.map(({ stats, relevance }) => {
    const { retrieved } = stats;
    for (const medium of stats.media) {
      for (const plane of planesOf(medium, { media, planes: planes.length, rows })) planes.push(plane);
      rows += medium.kept.length;
      media++;
    }
    checkRows(retrieved, relevance, { rows, media });
    const all = retrieved === undefined || retrieved.every(({ length }) => length === rows);
    return planes.map((plane) => ({
      plane: plane.index,
      retrieved: all ? undefined : retrieved?.map((layer) => cellsOf(layer, plane)),
      relevance: relevance?.map((layer) => relevanceOf(layer, plane)),
    }));
  });
}

function relevanceOf({ scores, places }: LayerRelevance, { medium, gridIndex, plane, grid }: Plane): Float32Array {
  const cells = new Float32Array(grid.rows * grid.cols);
  for (const [i, place] of places.entries())
    if (place.medium === medium && place.grid === gridIndex && place.t === plane)
      cells[place.row * grid.cols + place.col] = scores[i] ?? 0;
  return cells;
}

/** For each of `tokens` cells, the number of layers that retrieved it. */
export function layerCounts(retrieved: readonly (readonly number[])[], tokens: number): Int32Array {
  const counts = new Int32Array(tokens);
  for (const layer of retrieved) for (const cell of layer) counts[cell] = (counts[cell] ?? 0) + 1;
  return counts;
}

function cellsOf(retrieved: Int32Array, { rows, kept }: Plane): number[] {
  return Array.from(retrieved)
    .filter((row) => row >= rows.from && row < rows.to)
    .map((row) => kept[row - rows.from] as number);
}

function checkRows(
  retrieved: readonly Int32Array[] | undefined,
  relevance: readonly LayerRelevance[] | undefined,
  known: { readonly rows: number; readonly media: number },
): void {
  const row = Math.max(-1, ...(retrieved ?? []).map((layer) => layer.at(-1) ?? -1));
  const medium = Math.max(-1, ...(relevance ?? []).map(({ places }) => places.at(-1)?.medium ?? -1));
  if (row < known.rows && medium < known.media) return;
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `Expected all turns of one conversation from its start, received row ${row} of ${known.rows} rows and medium ${medium} of ` +
      `${known.media} so far.`,
  );
}
