// Validates what a method selects: a method may be the user's own, and an index out of range would otherwise corrupt results silently.

import { types } from 'node:util';
import { received, SparseVilaError } from '../errors';
import { listIn } from '../options';
import type { Selection } from '../sparsity/method';

/**
 * A copy of `selection`, which must hold ascending indices below n, each once.
 * @throws SparseVilaError `ERR_SELECTION` naming the method, its seam and the index
 */
export function checkSelection(method: string, seam: string, selection: unknown, n: number): Int32Array {
  const expected = `Expected ${seam} of method ${received(method)} to give an Int32Array of ascending indices below ${n}`;
  if (!types.isInt32Array(selection)) throw wrong(`${expected}, received ${received(selection)}.`);
  const copy = Int32Array.from(selection);
  let previous = -1;
  for (const [i, index] of copy.entries()) {
    if (index <= previous || index >= n) throw wrong(`${expected}, received ${index} at ${i} after ${previous}.`);
    previous = index;
  }
  return copy;
}

/**
 * Checks a selection that may merge: kept indices, and the rows that replace them, finite f32 [kept, width].
 * @throws SparseVilaError `ERR_SELECTION` as `checkIndices` does, and for rows of another size or with values that are not finite
 */
export function checkMerged(
  method: string,
  seam: string,
  selection: Selection | undefined,
  { n, width }: { n: number; width: number },
): { kept: Int32Array; rows?: Float32Array } {
  if (typeof selection !== 'object' || selection === null || types.isInt32Array(selection))
    return { kept: checkSelection(method, seam, selection, n) };
  const { kept: given, rows } = readMerged(method, seam, selection);
  const kept = checkSelection(method, seam, given, n);
  const expected = `Expected ${seam} of method ${received(method)} to give f32 [${kept.length}, ${width}] for its merged rows`;
  if (!types.isFloat32Array(rows) || rows.length !== kept.length * width)
    throw wrong(`${expected}, received ${types.isFloat32Array(rows) ? `${rows.length} numbers` : received(rows)}.`);
  const copy = Float32Array.from(rows);
  const bad = copy.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw wrong(`${expected}, all finite, received ${copy[bad]} at ${bad}.`);
  return { kept, rows: copy };
}

/**
 * Checks the result of `prune` or `encode`: one selection for each of `images` grids.
 * @throws SparseVilaError `ERR_SELECTION` if it is not a list of that length
 */
export function checkLists(method: string, lists: unknown, images: number, seam = 'prune'): readonly Selection[] {
  const list = listIn(lists);
  if (list?.length === images) return list as Selection[];
  const found = list === undefined ? received(lists) : `${list.length} selections`;
  throw wrong(
    `Expected ${seam} of method ${received(method)} to give a list of ${images} selections, received ${found}.`,
  );
}

/** For a method that leaves nothing of a grid. */
export function selectedNone(method: string, seam: string, n: number): SparseVilaError {
  return wrong(`Expected ${seam} of method ${received(method)} to give at least one of ${n} tokens, received none.`);
}

function readMerged(method: string, seam: string, selection: object): { kept?: unknown; rows?: unknown } {
  try {
    const { kept, rows } = selection as { kept?: unknown; rows?: unknown };
    return { kept, rows };
  } catch (cause) {
    const message = `What ${seam} of method ${received(method)} gives cannot be read.`;
    throw new SparseVilaError('ERR_SELECTION', message, { cause });
  }
}

function wrong(message: string): SparseVilaError {
  return new SparseVilaError('ERR_SELECTION', message);
}
