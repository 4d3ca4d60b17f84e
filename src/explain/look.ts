// From what a conversation's turns report to what can be drawn: for each picture its kept cells and salience, for each turn
// and picture the cells that each layer retrieved. Knows numbers only.

import { SparseVilaError } from '../errors';
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
 * @param turns all turns of a conversation that was never rewound, in order; `relevance` is per layer over all visual rows
 * @throws SparseVilaError `ERR_OPTION_INVALID` when rows were retrieved that no picture of these turns has
 */
export function looksOf(
  turns: readonly { readonly stats: LookedAt; readonly relevance?: readonly Float32Array[] | undefined }[],
): Look[][] {
  const pictures: { first: number; tokens: number; kept: Int32Array }[] = [];
  let rows = 0;
  return turns.map(({ stats, relevance }) => {
    for (const { tokens, kept } of stats.images) {
      pictures.push({ first: rows, tokens, kept });
      rows += kept.length;
    }
    checkRows(stats.retrieved, relevance, rows);
    const all = stats.retrieved === undefined || stats.retrieved.every(({ length }) => length === rows);
    return pictures.map(({ first, tokens, kept }, picture) => ({
      picture,
      retrieved: all ? undefined : stats.retrieved?.map((layer) => cellsOf(layer, first, kept)),
      relevance: relevance?.map((layer) => {
        const cells = new Float32Array(tokens);
        for (const [i, cell] of kept.entries()) cells[cell] = layer[first + i] ?? 0;
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
  relevance: readonly Float32Array[] | undefined,
  rows: number,
): void {
  const last = Math.max(-1, ...(retrieved ?? []).map((layer) => layer.at(-1) ?? -1));
  const scored = relevance?.find(({ length }) => length !== rows)?.length;
  if (last < rows && scored === undefined) return;
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `Expected all turns of one conversation from its start, whose pictures have ${rows} rows so far, ` +
      `received ${scored === undefined ? `row ${last}` : `relevance of ${scored}`}.`,
  );
}
