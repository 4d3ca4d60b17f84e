// A sparsity method as sessions use it: methods may be anyone's, so each part is checked once, and what a part throws gets a code.

import { messageOf, received, SparseVilaError } from '../errors';
import { BOOLEAN, type Check, COUNT, FUNCTION, isAccepted, listOf, NAME, nearest, OBJECT, oneOf } from '../options';
import type { SparsityMethod } from './method';
import { LAYER, POSITIONS } from './options';

const LAYERS = listOf('layers, each a number or a share of the depth between 0 and 1,', LAYER);

const PARTS: { readonly [K in keyof Required<SparsityMethod>]: Check } = {
  name: NAME,
  tower: {
    expected: 'an object of the lists of layers salience and keys',
    accepts: (value) =>
      OBJECT.accepts(value) &&
      Object.entries(value as object).every(
        ([name, layers]) =>
          (name === 'salience' || name === 'keys') && (layers === undefined || LAYERS.accepts(layers)),
      ),
  },
  positions: POSITIONS,
  merges: oneOf('features', 'projected'),
  prune: FUNCTION,
  dropFrom: LAYERS,
  scoresOf: oneOf('previous', 'next'),
  raters: FUNCTION,
  drop: FUNCTION,
  window: COUNT,
  retrieve: FUNCTION,
  evicts: BOOLEAN,
};

/**
 * A copy of `method` whose functions throw errors with codes.
 * @throws SparseVilaError `ERR_METHOD` for a part that is unknown or malformed
 */
export function checkedMethod(method: SparsityMethod): SparsityMethod {
  if (!isAccepted(OBJECT, method))
    throw new SparseVilaError(
      'ERR_METHOD',
      `Expected a sparsity method, such as dense() or sparseVila(), received ${received(method)}.`,
    );
  const parts: [string, unknown][] = [];
  for (const [part, check] of Object.entries(PARTS)) {
    const value = read(method, part);
    if (value === undefined && part !== 'name') continue;
    if (!isAccepted(check, value)) throw malformed(method, `${check.expected} for ${part}`, received(value));
    parts.push([part, typeof value === 'function' ? guarded(method, part, value as Part) : value]);
  }
  checkNames(method, Object.keys(PARTS));
  return Object.fromEntries(parts) as unknown as SparsityMethod;
}

type Part = (...given: unknown[]) => unknown;

function guarded(method: SparsityMethod, part: string, call: Part): Part {
  return (...given) => {
    try {
      return call.apply(method, given);
    } catch (cause) {
      if (cause instanceof SparseVilaError) throw cause;
      const message = `${part} of method ${received(method.name)} threw an error: ${messageOf(cause)}`;
      throw new SparseVilaError('ERR_METHOD', message, { cause });
    }
  };
}

function read(method: SparsityMethod, part: string): unknown {
  try {
    return (method as unknown as Record<string, unknown>)[part];
  } catch (cause) {
    throw new SparseVilaError('ERR_METHOD', `${part} of a method threw when it was read: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/** A part of its own that is spelled nearly as one of ours would be left out in silence. */
function checkNames(method: SparsityMethod, known: readonly string[]): void {
  for (const name of namesOf(method)) {
    const meant = known.includes(name) ? undefined : nearest(name, known);
    if (meant === undefined) continue;
    throw malformed(method, `a method made of ${known.join(', ')}`, `${received(name)}. Did you mean ${meant}?`);
  }
}

function namesOf(method: SparsityMethod): string[] {
  try {
    return Object.keys(method);
  } catch (cause) {
    throw new SparseVilaError('ERR_METHOD', `A method's parts cannot be listed: ${messageOf(cause)}`, { cause });
  }
}

function malformed(method: SparsityMethod, expected: string, found: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_METHOD',
    `Method ${received(read(method, 'name'))}: expected ${expected}, received ${found}`,
  );
}
