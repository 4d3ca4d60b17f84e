// The tokens of a medium that the tower computes: all, or those that a method selects from the pixels.

import { type PreparedMedium, planeTokens } from '../models/media';
import type { EncodedMedium, RowModel } from '../models/model';
import type { TokenRange } from '../models/parts';
import type { PixelView, SparsityMethod } from '../sparsity/method';
import { checkLists, checkSelection, selectedNone } from './selection';

/** Ascending tokens of the medium; undefined if all are computed. @throws SparseVilaError `ERR_SELECTION`, `ERR_METHOD_UNSUPPORTED` */
export function encodedTokens(
  model: RowModel,
  { name, encode }: SparsityMethod,
  medium: PreparedMedium,
): Int32Array | undefined {
  if (encode === undefined) return undefined;
  let end = 0;
  const grids = medium.layout.grids.filter(({ t }) => t > 0);
  const views = grids.map((grid): PixelView & { readonly first: number } => {
    const [first, tokens] = [end, grid.t * planeTokens(grid)];
    end += tokens;
    const { t, h, w } = grid;
    return { first, tokens, grid: { t, h, w }, pixels: () => model.pixels(medium, first, first + tokens) };
  });
  const lists = checkLists(name, encode.select(views), views.length, 'encode');
  const kept = views.flatMap(({ first, tokens }, i) => {
    const seam = `encode, for grid ${i},`;
    const own = checkSelection(name, seam, lists[i], tokens);
    if (own.length === 0) throw selectedNone(name, seam, tokens);
    return Array.from(own, (token) => token + first);
  });
  return kept.length === end ? undefined : Int32Array.from(kept);
}

/**
 * A selection among the tokens of a grid, without those that the tower has not computed; the first of them that it has, if none would be left.
 * @param seen whether each token of the grid was computed
 */
export function seenOnly<T extends { readonly kept: Int32Array; readonly rows?: Float32Array }>(
  selection: T,
  seen: Uint8Array,
): { readonly kept: Int32Array; readonly rows?: Float32Array } {
  const { kept, rows } = selection;
  const at = Int32Array.from(kept.keys()).filter((i) => seen[kept[i] as number] === 1);
  if (at.length === kept.length) return selection;
  if (at.length === 0) return { kept: Int32Array.of(seen.indexOf(1)) };
  const own = at.map((i) => kept[i] as number);
  if (rows === undefined) return { kept: own };
  const width = rows.length / kept.length;
  const left = new Float32Array(own.length * width);
  for (const [to, i] of at.entries()) left.set(rows.subarray(i * width, (i + 1) * width), to * width);
  return { kept: own, rows: left };
}

/** Whether each of some tokens was computed. */
export function seenIn(seen: Int32Array, first: number, tokens: number): Uint8Array {
  const flags = new Uint8Array(tokens);
  for (const token of seen) if (token >= first && token < first + tokens) flags[token - first] = 1;
  return flags;
}

/** The computed tokens of pieces that follow each other; undefined if they are all. */
export function joinedSeen(
  pieces: readonly ({ readonly part: Pick<EncodedMedium, 'seen'> } & TokenRange)[],
): Int32Array | undefined {
  if (pieces.every(({ part }) => part.seen === undefined)) return undefined;
  let at = 0;
  const seen = pieces.flatMap(({ part, from, to }) => {
    const flags = part.seen === undefined ? new Uint8Array(to - from).fill(1) : seenIn(part.seen, from, to - from);
    const first = at;
    at += to - from;
    return Array.from(flags.keys(), (i) => first + i).filter((_, i) => flags[i] === 1);
  });
  return Int32Array.from(seen);
}
