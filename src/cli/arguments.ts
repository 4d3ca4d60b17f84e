// Normalizes a command line by the options of its command before yargs parses it: an option takes exactly one value, even if that value
// begins with a dash (`--question '- where?'`), lists continue up to the next option, and every mistake is reported with its likely cause.
// The result is in the unambiguous form `--name=value`, positional arguments included.

import { received, SparseVilaError } from '../errors';
import { expectedNumber } from './numbers';
import { didYouMean, UsageError } from './usage';

/** Options that take a list of values each time they are given: `--video a.png b.png` is one video. Their values arrive as JSON. */
const GROUPED: readonly string[] = ['video'];

/** The values of a grouped option, one list for each time it was given. */
export function groupsOf(given: readonly string[]): string[][] {
  return given.map((values) => JSON.parse(values) as string[]);
}

/** The options that a command has declared, as yargs' `getOptions()` returns them. */
export interface DeclaredOptions {
  readonly key: Readonly<Record<string, unknown>>;
  readonly array: readonly string[];
  readonly boolean: readonly string[];
  readonly number: readonly string[];
  readonly narg: Readonly<Record<string, number>>;
  readonly choices: Readonly<Record<string, readonly unknown[]>>;
  readonly alias: Readonly<Record<string, readonly string[]>>;
}

/** One token of the command line: an option by its full name and, if given with `=`, its value. */
interface Option {
  readonly name: string;
  readonly value: string | undefined;
  /** Whether it was written `--no-name`. */
  readonly isNegated: boolean;
}

/**
 * The arguments after the command's name in the form for yargs. `positionals` are the options that positional arguments stand for, in order;
 * the last one takes all that remain.
 * @throws UsageError for an unknown option, a missing value, an invalid choice, or an option given twice; SparseVilaError `ERR_OPTION_INVALID` for a
 *   number that the option does not take
 */
export function prepareArguments(
  args: readonly string[],
  declared: DeclaredOptions,
  positionals: readonly string[],
): string[] {
  const options: string[] = [];
  const words: string[] = [];
  const seen = new Set<string>();
  const rest = [...args];
  for (let token = rest.shift(); token !== undefined; token = rest.shift()) {
    if (token === '--') {
      words.push(...rest.splice(0));
      break;
    }
    if (!looksLikeOption(token)) {
      words.push(token);
      continue;
    }
    const option = readOption(token, declared);
    const isList = declared.array.includes(option.name);
    if (seen.has(option.name) && !isList) throw new UsageError(`Expected --${option.name} once, received it again.`);
    seen.add(option.name);
    if (declared.boolean.includes(option.name)) {
      options.push(flagOf(option));
      continue;
    }
    const first = option.value ?? rest.shift();
    if (first === undefined) throw new UsageError(`Expected a value after --${option.name}, received none.`);
    const values = [first];
    const isGrouped = GROUPED.includes(option.name);
    const isOpen = isList && declared.narg[option.name] !== 1 && (positionals.length === 0 || isGrouped);
    while (isOpen && rest[0] !== undefined && !looksLikeOption(rest[0])) values.push(rest.shift() ?? '');
    const checked = values.map((value) => checkedValue(option.name, value, declared));
    for (const value of isGrouped ? [JSON.stringify(checked)] : checked) options.push(`--${option.name}=${value}`);
  }
  for (const [i, word] of words.entries()) {
    const name = positionals[i] ?? positionals.at(-1);
    if (name === undefined) throw stray(word);
    if (seen.has(name) && !declared.array.includes(name))
      throw new UsageError(`Expected --${name} once, received ${received(word)} as well.`);
    options.push(`--${name}=${checkedValue(name, word, declared)}`);
  }
  return options;
}

/** Whether a token is an option: texts such as `- where?` and `-5` are values, and a single dash stands for stdin. */
function looksLikeOption(token: string): boolean {
  return /^--?[^\s\d-][^\s=]*(=|$)/.test(token);
}

function readOption(token: string, declared: DeclaredOptions): Option {
  const [, dashes = '', written = '', , value] = /^(--?)([^=]*)(=([\s\S]*))?$/.exec(token) ?? [];
  const known = Object.keys(declared.key);
  const aliases = Object.entries(declared.alias).find(([name, others]) => [name, ...others].includes(written));
  const kebab = written.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const isShort = dashes === '-';
  if (isShort === (written.length === 1)) {
    const name = isShort ? aliases?.[0] : [written, kebab].find((candidate) => Object.hasOwn(declared.key, candidate));
    if (name !== undefined) return { name: longNameOf(name, declared), value, isNegated: false };
    const positive = kebab.replace(/^no-/, '');
    if (positive !== kebab && declared.boolean.includes(positive)) return { name: positive, value, isNegated: true };
  }
  const names = known.filter((name) => name.length > 1);
  throw new UsageError(`Unknown option ${token.split('=')[0]}.${didYouMean(written, names, '--')}`);
}

/** The main name of an option, which is its longest name, and the one that help and programs use. */
function longNameOf(name: string, declared: DeclaredOptions): string {
  const [main = name] = Object.entries(declared.alias).find(([key, others]) => [key, ...others].includes(name)) ?? [];
  return main;
}

function flagOf({ name, value, isNegated }: Option): string {
  if (value === undefined) return isNegated ? `--no-${name}` : `--${name}`;
  if (!isNegated && (value === 'true' || value === 'false')) return `--${name}=${value}`;
  throw new UsageError(`Expected --${name} or --no-${name} without a value, received ${received(value)}.`);
}

function checkedValue(name: string, value: string, { array, number, choices }: DeclaredOptions): string {
  // An empty text is useless in every list, and yargs would drop it.
  if (array.includes(name) && value.trim() === '')
    throw new UsageError(`Expected at least one character for --${name}, received an empty text.`);
  const expected = number.includes(name) ? expectedNumber(name, value) : undefined;
  if (expected !== undefined) {
    const found = value.trim() === '' || Number.isNaN(Number(value)) ? received(value) : value;
    throw new SparseVilaError('ERR_OPTION_INVALID', `Expected ${expected} for --${name}, received ${found}.`);
  }
  const allowed = choices[name]?.map(String);
  if (allowed === undefined || allowed.includes(value)) return value;
  const hint = didYouMean(value, allowed);
  throw new UsageError(`Expected one of ${allowed.join(', ')} for --${name}, received ${received(value)}.${hint}`);
}

function stray(word: string): UsageError {
  return new UsageError(
    `Unexpected argument ${received(word)}: every value follows its option, and a text with spaces needs quotation marks.`,
  );
}
