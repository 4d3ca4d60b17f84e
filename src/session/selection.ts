// What a method selects, checked once: methods may be anyone's, and a wrong index would be read or left out silently.

import { SparseVilaError } from '../errors';

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
