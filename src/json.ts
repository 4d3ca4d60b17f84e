// Typed reading of JSON config files. A key that is absent or null takes its fallback, because published files omit values that equal the
// defaults of the class that wrote them. Accepts everything that Python's json writes (NaN, Infinity, lone surrogates, duplicate keys, of
// which the last one counts), within bounds on bytes, values and nesting. Does not know what the files configure.
import { type ErrorCode, messageOf, SparseVilaError } from './errors';
import { readTextFile } from './files';

export type Json = Record<string, unknown>;

/** Maximum size of a JSON file: twice that of the largest published tokenizer.json. */
const JSON_BYTES = 64 * 2 ** 20;
/** Maximum number of values in a JSON text: four times those of the largest published tokenizer.json. Each takes at least 16 bytes of memory. */
const MAX_JSON_VALUES = 8_000_000;
/** Maximum nesting. Python's json fails near 1,000; published files nest less than 20 levels. */
const MAX_JSON_DEPTH = 500;
/** Largest size or count, because these are used as int32. */
const MAX_SIZE = 2 ** 31 - 1;

/** Typed access to one JSON object of a config file; every error names the file and the dotted key. */
export interface ConfigReader {
  readonly json: Json;
  readonly file: string;
  /** True if the key is present and not null. */
  has(key: string): boolean;
  /** A finite number. */
  number(key: string, fallback?: number): number;
  /** A non-negative number that is used in f32: finite there, and 0 there only if it is 0. */
  float(key: string, fallback?: number): number;
  /** An integer from 1 to `most`, by default 2^31 - 1: a size or a count. */
  size(key: string, fallback?: number, most?: number): number;
  /** true or false; 1 and 0 are accepted, as in Python. */
  boolean(key: string, fallback?: boolean): boolean;
  string(key: string, fallback?: string): string;
  /** A string from a closed list. */
  oneOf<T extends string>(key: string, values: readonly T[], fallback?: T): T;
  /** A nested object, or undefined when absent or null. */
  object(key: string): ConfigReader | undefined;
  /** The error of this file for one key: "<file>: expected <expected> for <key>, received <value>". */
  wrong(key: string, expected: string): SparseVilaError;
  /** The error for a valid value that is not supported: `ERR_CONFIG_UNSUPPORTED`. */
  unsupported(key: string, expected: string): SparseVilaError;
}

/**
 * Parses one JSON file whose top level is an object.
 * @throws SparseVilaError `ERR_CONFIG_MISSING` (no such file), `ERR_FILE_…` (unreadable, too large, not UTF-8) or
 *   `ERR_CONFIG_INVALID` (not JSON, not an object, too many values, too deep).
 */
export function readJson(file: string, limit: number = JSON_BYTES): Json {
  const text = readTextFile(file, { what: 'a JSON file', missing: 'ERR_CONFIG_MISSING', limit });
  const json = parseJson(text, (why) => new SparseVilaError('ERR_CONFIG_INVALID', `${file}: ${why}`));
  if (!isObject(json)) {
    throw new SparseVilaError('ERR_CONFIG_INVALID', `${file}: expected a JSON object, received ${show(json)}`);
  }
  return json;
}

/** Parses JSON as Python's json does. Throws the error that `invalid` makes from a reason ("expected JSON, but …"). */
export function parseJson(text: string, invalid: (why: string) => SparseVilaError): unknown {
  const constants = scan(text, invalid);
  try {
    if (constants.length === 0) return JSON.parse(text);
    return JSON.parse(withConstants(text, constants), (_, value) => (value === NAN_MARK ? Number.NaN : value));
  } catch (cause) {
    throw invalid(`expected JSON, but ${messageOf(cause)}`);
  }
}

/** A line of a JSON lines file: its value, its location, and a function that makes the error for it. */
export interface JsonLine {
  readonly json: unknown;
  readonly place: string;
  wrong(expected: string, received: string): SparseVilaError;
}

/**
 * Reads a JSON lines file of at least one line; empty lines are ignored.
 * @param what its content, for messages
 * @throws SparseVilaError `code`, naming the line
 */
export function readJsonLines<T>(
  file: string,
  { what, code, limit }: { readonly what: string; readonly code: ErrorCode; readonly limit: number },
  parse: (line: JsonLine) => T,
): { readonly text: string; readonly values: T[] } {
  const text = readTextFile(file, { what, limit, missing: code, unreadable: code });
  const lines = text
    .split('\n')
    .map((line, i) => ({ line: line.replace(/^\uFEFF/, '').trim(), place: `${file}:${i + 1}` }));
  const values = lines.flatMap(({ line, place }) => {
    if (line === '') return [];
    const wrong = (expected: string, received: string): SparseVilaError =>
      new SparseVilaError(code, `${place}: expected ${expected}, received ${received}.`);
    try {
      return [{ json: JSON.parse(line) as unknown, place, wrong }];
    } catch (cause) {
      throw new SparseVilaError(code, `${place}: expected a JSON object, but ${messageOf(cause)}.`, { cause });
    }
  });
  if (values.length === 0)
    throw new SparseVilaError(code, `${file}: expected at least one conversation, received an empty file.`);
  return { text, values: values.map(parse) };
}

/** A string that no config file contains: JSON cannot hold this character unescaped, and no config escapes it. */
const NAN_MARK = '\u0000NaN of Python';
const CONSTANTS: Readonly<Record<string, string>> = { NaN: JSON.stringify(NAN_MARK), Infinity: '1e999' };

/** Checks the bounds of a JSON text in one pass, and returns the positions of NaN and Infinity outside strings. */
function scan(text: string, invalid: (why: string) => SparseVilaError): number[] {
  const constants: number[] = [];
  let depth = 0;
  let values = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 0x22) at = endOfString(text, at);
    else if (code === 0x5b || code === 0x7b) {
      values++;
      if (++depth > MAX_JSON_DEPTH)
        throw invalid(`expected JSON nested at most ${MAX_JSON_DEPTH} levels deep, received more`);
    } else if (code === 0x5d || code === 0x7d) depth--;
    else if (code === 0x2c) values++;
    else if ((code === 0x4e && text.startsWith('NaN', at)) || (code === 0x49 && text.startsWith('Infinity', at)))
      constants.push(at);
    if (values > MAX_JSON_VALUES) throw invalid(`expected JSON of at most ${MAX_JSON_VALUES} values, received more`);
  }
  return constants;
}

/** The position of the quotation mark that ends the string begun at `at`, or the end of the text. */
function endOfString(text: string, at: number): number {
  for (let end = text.indexOf('"', at + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let slashes = 0;
    while (text.charCodeAt(end - 1 - slashes) === 0x5c) slashes++;
    if (slashes % 2 === 0) return end;
  }
  return text.length;
}

function withConstants(text: string, places: readonly number[]): string {
  let from = 0;
  const pieces: string[] = [];
  for (const at of places) {
    const name = text[at] === 'N' ? 'NaN' : 'Infinity';
    pieces.push(text.slice(from, at), CONSTANTS[name] ?? '');
    from = at + name.length;
  }
  return pieces.join('') + text.slice(from);
}

/** Typed readers over a parsed object. `file` and `path` (the dotted keys above it) are used in messages only. */
export function configReader(json: Json, file: string, path = ''): ConfigReader {
  const complaint = (key: string, expected: string): string => {
    const received = Object.hasOwn(json, key) ? show(json[key]) : 'nothing';
    return `${file}: expected ${expected} for "${path}${key}", received ${received}`;
  };
  const wrong = (key: string, expected: string) => new SparseVilaError('ERR_CONFIG_INVALID', complaint(key, expected));
  const own = (key: string): unknown => (Object.hasOwn(json, key) ? (json[key] ?? undefined) : undefined);
  const read = <T>(key: string, expected: string, is: (value: unknown) => value is T, fallback?: T): T => {
    const value = own(key) ?? fallback;
    if (!is(value)) throw wrong(key, expected);
    return value;
  };
  return {
    json,
    file,
    has: (key) => own(key) !== undefined,
    number: (key, fallback) => read(key, 'a number', isNumber, fallback),
    float: (key, fallback) => read(key, 'a number of at least 0 that f32 holds', isFloat, fallback),
    size: (key, fallback, most = MAX_SIZE) => {
      const isWithin = (value: unknown): value is number => isSize(value) && value <= most;
      return read(key, `an integer from 1 to ${most}`, isWithin, fallback);
    },
    boolean: (key, fallback) => Boolean(read(key, 'true or false', isBoolean, fallback)),
    string: (key, fallback) => read(key, 'a string', isString, fallback),
    oneOf: <T extends string>(key: string, values: readonly T[], fallback?: T) => {
      const isOne = (value: unknown): value is T => values.some((known) => known === value);
      return read(key, `one of ${values.join(', ')}`, isOne, fallback);
    },
    object: (key) => {
      const value = own(key);
      if (value === undefined) return undefined;
      if (!isObject(value)) throw wrong(key, 'an object');
      return configReader(value, file, `${path}${key}.`);
    },
    wrong,
    unsupported: (key, expected) =>
      new SparseVilaError('ERR_CONFIG_UNSUPPORTED', `${complaint(key, expected)}. Nothing else is implemented.`),
  };
}

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);
const isFloat = (value: unknown): value is number =>
  isNumber(value) && value >= 0 && Number.isFinite(Math.fround(value)) && (value === 0 || Math.fround(value) > 0);
const isSize = (value: unknown): value is number =>
  Number.isInteger(value) && Number(value) >= 1 && Number(value) <= MAX_SIZE;
const isBoolean = (value: unknown): value is boolean | 0 | 1 =>
  typeof value === 'boolean' || value === 0 || value === 1;
const isString = (value: unknown): value is string => typeof value === 'string';
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function show(value: unknown): string {
  const text = JSON.stringify(value, (_, part) => (isNumber(part) || typeof part !== 'number' ? part : String(part)));
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
