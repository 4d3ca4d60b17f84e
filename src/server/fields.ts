// Reads the fields of a JSON body one by one, with errors that name the path of the field. null counts as absent, as in OpenAI's API.

import { received } from '../errors';
import { nearest } from '../options';
import { invalidField, type RequestError } from './request_error';

/** Readers of the fields of one object. All return undefined for an absent field, and throw RequestError for another type. */
export interface Fields {
  readonly path: string;
  value(name: string): unknown;
  text(name: string, most?: number): string | undefined;
  number(name: string, least: number, most: number): number | undefined;
  integer(name: string, least: number, most: number): number | undefined;
  flag(name: string): boolean | undefined;
  list(name: string, most?: number): readonly unknown[] | undefined;
  object(name: string): Fields | undefined;
  oneOf<T extends string>(name: string, words: readonly T[]): T | undefined;
  /** The names of all fields that are present. */
  names(): string[];
  /** Refuses a field that is in neither list. */
  only(...known: readonly (readonly string[])[]): void;
  at(name: string): string;
}

const MOST_TEXT = 64 * 2 ** 20;

/** The fields of a value that must be an object. `path` is '' for the body. @throws RequestError */
export function fieldsOf(value: unknown, path = ''): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw wrongType(path === '' ? 'body' : path, 'an object', value);
  const own = value as Readonly<Record<string, unknown>>;
  const at = (name: string): string => (path === '' ? name : `${path}.${name}`);
  const read = (name: string): unknown => (Object.hasOwn(own, name) ? (own[name] ?? undefined) : undefined);
  const typed = <T>(name: string, expected: string, accepts: (value: unknown) => boolean): T | undefined => {
    const found = read(name);
    if (found === undefined || accepts(found)) return found as T | undefined;
    throw wrongType(at(name), expected, found);
  };
  const inRange = (least: number, most: number) => (found: unknown) =>
    typeof found === 'number' && found >= least && found <= most;
  return {
    path,
    at,
    value: read,
    text: (name, most = MOST_TEXT) =>
      typed(
        name,
        `a string of at most ${most} characters`,
        (found) => typeof found === 'string' && found.length <= most,
      ),
    number: (name, least, most) => typed(name, `a number from ${least} to ${most}`, inRange(least, most)),
    integer: (name, least, most) =>
      typed(
        name,
        `an integer from ${least} to ${most}`,
        (found) => Number.isSafeInteger(found) && inRange(least, most)(found),
      ),
    flag: (name) => typed(name, 'true or false', (found) => typeof found === 'boolean'),
    list: (name, most = 100_000) =>
      typed(name, `a list of at most ${most} values`, (found) => Array.isArray(found) && found.length <= most),
    object: (name) => {
      const found = read(name);
      return found === undefined ? undefined : fieldsOf(found, at(name));
    },
    oneOf: (name, words) =>
      typed(name, words.map((word) => `'${word}'`).join(' or '), (found) => words.includes(found as never)),
    names: () => Object.keys(own).filter((name) => read(name) !== undefined),
    only: (...lists) => {
      const known = lists.flat();
      const unknown = Object.keys(own).find((name) => !known.includes(name));
      if (unknown === undefined) return;
      const meant = nearest(unknown, known);
      const hint = meant === undefined ? '' : ` Did you mean '${meant}'?`;
      throw invalidField(
        at(unknown.slice(0, 64)),
        `Unknown parameter: ${received(at(unknown))}.${hint}`,
        'unknown_parameter',
      );
    },
  };
}

/** A 400 for a value of another type or out of range. */
export function wrongType(path: string, expected: string, value: unknown): RequestError {
  return invalidField(path, `Invalid value for '${path}': expected ${expected}, received ${received(value)}.`);
}

/** A 400 for an absent field. */
export function missing(path: string): RequestError {
  return invalidField(path, `Missing required parameter: '${path}'.`, 'missing_required_parameter');
}
