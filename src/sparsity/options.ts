// What the options of methods may be, checked at one door: an unknown option or a value out of range is an error.

import { SparseVilaError } from '../errors';

/** What an option takes, in words and as a test. */
export interface Check {
  readonly expected: string;
  readonly accepts: (value: unknown) => boolean;
}

/** A share dropped. */
export const SHARE: Check = {
  expected: 'a share of at least 0 and below 1',
  accepts: (value) => typeof value === 'number' && value >= 0 && value < 1,
};

/** A layer: an integer, negative from the last; or, between 0 and 1, a share of the depth. */
export const LAYER: Check = {
  expected: 'a layer number, or a share of the depth between 0 and 1',
  accepts: (value) => Number.isInteger(value) || (typeof value === 'number' && value > 0 && value < 1),
};

/** Where three stages begin: as many layers, ascending. */
export const THREE_LAYERS: Check = {
  expected: 'three layers, each a number or a share of the depth between 0 and 1,',
  accepts: (value) => Array.isArray(value) && value.length === 3 && value.every(LAYER.accepts),
};

export const COUNT: Check = {
  expected: 'an integer of at least 1',
  accepts: (value) => Number.isInteger(value) && (value as number) >= 1,
};

export const NATURAL: Check = {
  expected: 'an integer of at least 0',
  accepts: (value) => Number.isInteger(value) && (value as number) >= 0,
};

export const SEED: Check = {
  expected: 'an integer from 0 to 2^53 - 1',
  accepts: (value) => Number.isSafeInteger(value) && (value as number) >= 0,
};

/** One of some words. */
export function oneOf(...words: readonly string[]): Check {
  return {
    expected: words.map((word) => `'${word}'`).join(' or '),
    accepts: (value) => words.includes(value as string),
  };
}

export const POSITIONS = oneOf('original', 'compact');

/** @throws SparseVilaError `ERR_OPTION_INVALID` for an option that is not in `checks`, or that its check does not accept */
export function checkOptions<T extends object>(
  method: string,
  options: T,
  checks: { readonly [K in keyof Required<T>]: Check },
): void {
  const known = checks as Readonly<Record<string, Check>>;
  for (const [name, value] of Object.entries(options)) {
    const check = Object.hasOwn(known, name) ? known[name] : undefined;
    if (check?.accepts(value) || (check && value === undefined)) continue;
    const [expected, received] = check
      ? [`${check.expected} for ${name}`, String(value)]
      : [`one of the options ${Object.keys(known).join(', ')}`, name];
    throw new SparseVilaError('ERR_OPTION_INVALID', `${method}: expected ${expected}, received ${received}.`);
  }
}
