// Typed reading of JSON config files. A key that is absent or null takes its fallback, because published files leave out
// whatever equals the default of the class that wrote them. Knows nothing about what the files configure.
import { SparseVilaError } from './errors';
import { readTextFile } from './files';

export type Json = Record<string, unknown>;

/** Typed access to one JSON object of a config file; every complaint names the file and the dotted key. */
export interface ConfigReader {
  readonly json: Json;
  readonly file: string;
  /** True if the key is there and not null. */
  has(key: string): boolean;
  /** A finite number. */
  number(key: string, fallback?: number): number;
  /** An integer ≥ 1: a size or a count. */
  size(key: string, fallback?: number): number;
  boolean(key: string, fallback?: boolean): boolean;
  string(key: string, fallback?: string): string;
  /** A string out of a closed list. */
  oneOf<T extends string>(key: string, values: readonly T[], fallback?: T): T;
  /** A nested object, or undefined when absent or null. */
  object(key: string): ConfigReader | undefined;
  /** The error of this file for one key: "<file>: expected <expected> for <key>, received <what is there>". */
  wrong(key: string, expected: string): SparseVilaError;
}

/** The largest JSON file that is read: twice the largest published tokenizer.json. */
const JSON_BYTES = 64 * 2 ** 20;

/**
 * Parses one JSON file whose top level is an object.
 * @throws SparseVilaError `ERR_CONFIG_MISSING` (no such file), `ERR_CONFIG_INVALID` (not JSON, not an object), and what `readTextFile`
 *   throws for what is there and cannot be read.
 */
export function readJson(file: string, limit: number = JSON_BYTES): Json {
  const text = readTextFile(file, { what: 'a JSON file', missing: 'ERR_CONFIG_MISSING', limit });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new SparseVilaError('ERR_CONFIG_INVALID', `${file}: expected JSON, but ${reason(cause)}`, { cause });
  }
  if (!isObject(json)) {
    throw new SparseVilaError('ERR_CONFIG_INVALID', `${file}: expected a JSON object, received ${show(json)}`);
  }
  return json;
}

/** Typed readers over a parsed object. `file` and `path` (the dotted keys above it) only serve messages. */
export function configReader(json: Json, file: string, path = ''): ConfigReader {
  const wrong = (key: string, expected: string): SparseVilaError => {
    const received = key in json ? show(json[key]) : 'nothing';
    return new SparseVilaError(
      'ERR_CONFIG_INVALID',
      `${file}: expected ${expected} for "${path}${key}", received ${received}`,
    );
  };
  const read = <T>(key: string, expected: string, is: (value: unknown) => value is T, fallback?: T): T => {
    const value = json[key] ?? fallback;
    if (!is(value)) throw wrong(key, expected);
    return value;
  };
  return {
    json,
    file,
    has: (key) => (json[key] ?? null) !== null,
    number: (key, fallback) => read(key, 'a number', isNumber, fallback),
    size: (key, fallback) => read(key, 'an integer of at least 1', isSize, fallback),
    boolean: (key, fallback) => read(key, 'true or false', isBoolean, fallback),
    string: (key, fallback) => read(key, 'a string', isString, fallback),
    oneOf: <T extends string>(key: string, values: readonly T[], fallback?: T) => {
      const isOne = (value: unknown): value is T => values.some((known) => known === value);
      return read(key, `one of ${values.join(', ')}`, isOne, fallback);
    },
    object: (key) => {
      const value = json[key] ?? undefined;
      if (value === undefined) return undefined;
      if (!isObject(value)) throw wrong(key, 'an object');
      return configReader(value, file, `${path}${key}.`);
    },
    wrong,
  };
}

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);
const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 1;
const isBoolean = (value: unknown): value is boolean => typeof value === 'boolean';
const isString = (value: unknown): value is string => typeof value === 'string';
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const reason = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
