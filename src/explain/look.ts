// From what a conversation's turns report to what can be drawn: for each picture its kept cells and salience, for each turn
// and picture the cells that each layer attended. Knows numbers only.

import { SparseVilaError } from '../errors';
import type { LayerRelevance } from '../sparsity/observed';
import type { Grid } from './canvas';

/** The part of a turn's statistics that is looked at. */
export interface LookedAt {
  readonly images: readonly {
    readonly grid: Grid;
    readonly tokens: number;
    readonly kept: Int32Array;
    readonly salience: Float32Array | undefined;
  }[];
  readonly retrieved: readonly Int32Array[] | undefined;
}

/** One picture in one turn. */
export interface Look {
  /** Number of the picture among all of the conversation. */
  readonly picture: number;
  /** Per layer, the cells attended, ascending; undefined when every layer attends every kept cell. */
  readonly retrieved: readonly (readonly number[])[] | undefined;
  /** Per layer, the relevance of each cell; 0 where it was pruned. Undefined when it was not recorded. */
  readonly relevance: readonly Float32Array[] | undefined;
}

/**
 * What each turn looked at, of every picture that was there by then.
 * @param turns all turns of a conversation that was never rewound, in order
 * @throws SparseVilaError `ERR_OPTION_INVALID` when rows were attended that no picture of these turns has
 */
export function looksOf(
  turns: readonly { readonly stats: LookedAt; readonly relevance?: readonly LayerRelevance[] | undefined }[],
): Look[][] {
  const pictures: { first: number; tokens: number; cols: number; kept: Int32Array }[] = [];
  let rows = 0;
  return turns.map(({ stats: { images, retrieved }, relevance }) => {
    for (const { tokens, grid, kept } of images) {
      pictures.push({ first: rows, tokens, cols: grid.cols, kept });
      rows += kept.length;
    }
    checkRows(retrieved, relevance, { rows, images: pictures.length });
    const all = retrieved === undefined || retrieved.every(({ length }) => length === rows);
    return pictures.map(({ first, tokens, cols, kept }, picture) => ({
      picture,
      retrieved: all ? undefined : retrieved?.map((layer) => cellsOf(layer, first, kept)),
      relevance: relevance?.map(({ scores, places }) => {
        const cells = new Float32Array(tokens);
        for (const [i, { image, row, col }] of places.entries())
          if (image === picture) cells[row * cols + col] = scores[i] ?? 0;
        return cells;
      }),
    }));
  });
}

/** How many layers retrieved each of `tokens` cells. */
export function layerCounts(retrieved: readonly (readonly number[])[], tokens: number): Int32Array {
  const counts = new Int32Array(tokens);
  for (const layer of retrieved) for (const cell of layer) counts[cell] = (counts[cell] ?? 0) + 1;
  return counts;
}

function cellsOf(rows: Int32Array, first: number, kept: Int32Array): number[] {
  return Array.from(rows)
    .filter((row) => row >= first && row < first + kept.length)
    .map((row) => kept[row - first] as number);
}

function checkRows(
  retrieved: readonly Int32Array[] | undefined,
  relevance: readonly LayerRelevance[] | undefined,
  known: { readonly rows: number; readonly images: number },
): void {
  const row = Math.max(-1, ...(retrieved ?? []).map((layer) => layer.at(-1) ?? -1));
  const image = Math.max(-1, ...(relevance ?? []).map(({ places }) => places.at(-1)?.image ?? -1));
  if (row < known.rows && image < known.images) return;
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `Expected all turns of one conversation from its start, received row ${row} of ${known.rows} rows and image ${image} of ` +
      `${known.images} images so far.`,
  );
}
