// Validates options and arguments: an unknown name or an invalid value is an error before any work begins.

import { coded, messageOf, received, SparseVilaError } from './errors';

/** What was expected of a part of a value, and what was received. */
export type Fault = readonly [expected: string, found: string];

/** The accepted values of an option: a description and a test. */
export interface Check {
  readonly expected: string;
  readonly accepts: (value: unknown) => boolean;
  /** Which part of a value that is not accepted is at fault, if one is: what was expected of it, and what was received. */
  readonly fault?: (value: unknown) => Fault | undefined;
  /** Whether the option is required. */
  readonly required?: true;
}

export type Checks<T> = { readonly [K in keyof Required<T>]: Check };

export const TEXT: Check = { expected: 'a text', accepts: (value) => typeof value === 'string' };

export const NAME: Check = {
  expected: 'a text of at least one character',
  accepts: (value) => typeof value === 'string' && value !== '',
};

export const BOOLEAN: Check = { expected: 'true or false', accepts: (value) => typeof value === 'boolean' };

export const FUNCTION: Check = { expected: 'a function', accepts: (value) => typeof value === 'function' };

export const COUNT: Check = integer(1);

export const NATURAL: Check = integer(0);

export const SEED: Check = { ...integer(0), expected: 'an integer from 0 to 2^53 - 1' };

export const SIGNAL: Check = { expected: 'an AbortSignal', accepts: (value) => value instanceof AbortSignal };

/** An integer from `least` to `most`. */
export function integer(least: number, most = Number.MAX_SAFE_INTEGER): Check {
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  return {
    expected: `an integer ${range}`,
    accepts: (value) => typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= most,
  };
}

/** A finite number of at least `least`. */
export function finite(least: number): Check {
  return {
    expected: `a finite number of at least ${least}`,
    accepts: (value) => typeof value === 'number' && Number.isFinite(value) && value >= least,
  };
}

/** One of several words. */
export function oneOf(...words: readonly string[]): Check {
  return {
    expected: words.map((word) => `'${word}'`).join(' or '),
    accepts: (value) => words.includes(value as string),
  };
}

/** A list of at least `least` values that `check` accepts; `of` describes them. */
export function listOf(of: string, check: Check, least = 0): Check {
  return {
    expected: `a list of ${least > 0 ? `at least ${least} ` : ''}${of}`,
    accepts: (value) =>
      // Array.from, because `every` skips holes.
      Array.isArray(value) && value.length >= least && Array.from(value).every((one) => check.accepts(one)),
    fault: (value) => check.fault?.(listIn(value)?.find((one) => !check.accepts(one))),
  };
}

/** Accepts every value; the value is checked where it is used. */
export const ANYTHING: Check = { expected: 'anything', accepts: () => true };

/** Any object that is not a list. */
export const OBJECT: Check = {
  expected: 'an object',
  accepts: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
};

/** An object with these methods, such as an engine: of any class. */
export function withMethods(expected: string, ...names: readonly string[]): Check {
  return {
    expected,
    accepts: (value) =>
      typeof value === 'object' &&
      value !== null &&
      names.every((name) => typeof (value as Readonly<Record<string, unknown>>)[name] === 'function'),
  };
}

/**
 * Checks the options of `what` and returns a copy of those that are given; `undefined` counts as absent. Each option is read once, so that the
 * checked value is the one that is used.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for options that are not an object, a name that is not in `checks`, or a value that its check
 *   does not accept; `ERR_OPTION_MISSING` for an absent required one
 */
export function checkOptions<T extends object>(what: string, options: T | undefined, checks: Checks<T>): T {
  const known = checks as Readonly<Record<string, Check>>;
  const given = readOptions(what, options);
  for (const name of given.keys()) if (!Object.hasOwn(known, name)) throw unknownOption(what, name, Object.keys(known));
  const entries: [string, unknown][] = [];
  for (const [name, check] of Object.entries(known)) {
    const value = given.get(name);
    if (value === undefined && check.required) {
      throw new SparseVilaError(
        'ERR_OPTION_MISSING',
        `${what}: expected ${check.expected} for ${name}, received none.`,
      );
    }
    if (value === undefined) continue;
    checkValue(what, name, value, check);
    entries.push([name, value]);
  }
  return Object.fromEntries(entries) as T;
}

/** A copy of a caller's list, read once; undefined if it is not a list or throws when it is read, as a revoked proxy does. */
export function listIn(value: unknown): unknown[] | undefined {
  try {
    return Array.isArray(value) ? Array.from(value as unknown[]) : undefined;
  } catch {
    return undefined;
  }
}

/** Checks one argument. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkValue(what: string, name: string, value: unknown, check: Check): void {
  if (isAccepted(check, value)) return;
  const fault = faultIn(check, value);
  if (fault !== undefined) throw invalidOption(what, ...fault);
  throw invalidOption(what, `${check.expected} for ${name}`, received(value));
}

function faultIn(check: Check, value: unknown): Fault | undefined {
  try {
    return check.fault?.(value);
  } catch {
    // A getter or proxy threw.
    return undefined;
  }
}

/** An `ERR_OPTION_INVALID` in the common wording; `found` is used verbatim. */
export function invalidOption(what: string, expected: string, found: string): SparseVilaError {
  return new SparseVilaError('ERR_OPTION_INVALID', `${what}: expected ${expected}, received ${found}.`);
}

/** Calls a function of the caller. @throws SparseVilaError `ERR_CALLBACK` with the function's error as the cause */
export function guardedCallback<A extends unknown[], R>(name: string, call: (...given: A) => R): (...given: A) => R {
  return (...given) => {
    try {
      return call(...given);
    } catch (cause) {
      throw new SparseVilaError('ERR_CALLBACK', `${name} threw an error: ${messageOf(cause)}`, { cause });
    }
  };
}

/** The signal in options of any form. */
export function signalOf(options: unknown): AbortSignal | undefined {
  try {
    const { signal } = options as { signal?: unknown };
    return signal instanceof AbortSignal ? signal : undefined;
  } catch {
    return undefined;
  }
}

/** A function of the public API, whose last argument are options: what leaves it has a code, or is the reason of the options' signal. */
export function withCodes<A extends unknown[], R>(work: (...given: A) => Promise<R>): (...given: A) => Promise<R> {
  return async (...given) => {
    try {
      return await work(...given);
    } catch (error) {
      throw coded(error, signalOf(given.at(-1)));
    }
  };
}

/** The likely intended word for `name`: one with at most two letters, or a third of them, changed. */
export function nearest(name: string, words: readonly string[]): string | undefined {
  const ranked = words
    .map((word) => ({ word, edits: distance(name.slice(0, 64).toLowerCase(), word.toLowerCase()) }))
    .filter(({ word, edits }) => edits <= (word.length < 5 ? 1 : Math.max(2, Math.floor(word.length / 3))));
  return ranked.sort((a, b) => a.edits - b.edits)[0]?.word;
}

/** The current options by name: own enumerable properties only, so that a prototype cannot add any. */
function readOptions(what: string, options: unknown): Map<string, unknown> {
  if (options === undefined) return new Map();
  try {
    if (isPlain(options)) return new Map(Object.entries(options as object));
  } catch (cause) {
    const message = `${what}: expected options that can be read, but reading them threw: ${messageOf(cause)}`;
    throw new SparseVilaError('ERR_OPTION_INVALID', message, { cause });
  }
  throw invalidOption(what, 'a plain object of options', received(options));
}

/**
 * Whether a value is a plain object, `{}` or Object.create(null), in any realm. Other objects have values that are not own properties: a
 * promise that was not awaited, or a Map, would otherwise count as no options.
 */
function isPlain(value: unknown): boolean {
  if (!OBJECT.accepts(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function unknownOption(what: string, name: string, known: readonly string[]): SparseVilaError {
  const meant = nearest(name, known);
  const shown = /^[\w-]+$/.test(name) && name.length < 64 ? name : received(name);
  return new SparseVilaError(
    'ERR_OPTION_INVALID',
    `${what}: expected only the options ${known.join(', ')}, received ${shown}.` +
      `${meant === undefined ? '' : ` Did you mean ${meant}?`}`,
  );
}

/** Whether a check accepts a value. A value whose code throws when it is examined (a proxy, a getter) is not accepted. */
export function isAccepted(check: Check, value: unknown): boolean {
  try {
    return check.accepts(value);
  } catch {
    return false;
  }
}

/** The number of letters inserted, omitted, replaced, or swapped with a neighbor between two words (optimal string alignment). */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1];
    for (let j = 1; j <= b.length; j++) {
      const [left = 0, above = 0, corner = 0] = [next[j - 1], row[j], row[j - 1]];
      const exchanged =
        letter === b[j - 2] && a[i - 1] === b[j - 1] ? (before[j - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY;
      next.push(Math.min(left + 1, above + 1, corner + (letter === b[j - 1] ? 0 : 1), exchanged));
    }
    before = row;
    row = next;
  }
  return row[b.length] ?? 0;
}
