// What a method selects, checked once: methods may be anyone's, and a wrong index would be read or left out silently.

import { SparseVilaError } from '../errors';
import type { Selection } from '../sparsity/method';

/**
 * `selection` itself when it holds ascending indices below n, each once.
 * @throws SparseVilaError `ERR_SELECTION` naming the method, its seam and the index
 */
export function checkSelection(method: string, seam: string, selection: unknown, n: number): Int32Array {
  const expected = `Expected ${seam} of method ${JSON.stringify(method)} to give an Int32Array of ascending indices below ${n}`;
  if (!(selection instanceof Int32Array)) {
    throw new SparseVilaError('ERR_SELECTION', `${expected}, received ${String(selection)}.`);
  }
  let previous = -1;
  for (const [i, index] of selection.entries()) {
    if (index <= previous || index >= n) {
      throw new SparseVilaError('ERR_SELECTION', `${expected}, received ${index} at ${i} after ${previous}.`);
    }
    previous = index;
  }
  return selection;
}

/**
 * The same for a seam that may merge: kept indices, and the rows that take their place, f32 [kept, width].
 * @throws SparseVilaError `ERR_SELECTION` also for rows of another size
 */
export function checkMerged(
  method: string,
  seam: string,
  selection: Selection | undefined,
  { n, width }: { n: number; width: number },
): { kept: Int32Array; rows?: Float32Array } {
  if (selection === undefined || selection instanceof Int32Array)
    return { kept: checkSelection(method, seam, selection, n) };
  const kept = checkSelection(method, seam, selection.kept, n);
  const { rows } = selection;
  if (rows instanceof Float32Array && rows.length === kept.length * width) return { kept, rows };
  throw new SparseVilaError(
    'ERR_SELECTION',
    `Expected ${seam} of method ${JSON.stringify(method)} to give f32 [${kept.length}, ${width}] for its merged rows, received ` +
      `${rows instanceof Float32Array ? `${rows.length} numbers` : String(rows)}.`,
  );
}
