// Renders Jinja templates within bounds, because a template comes with a checkpoint and is not trusted: its length, the steps of a rendering,
// the size of each value and their sum, and the time are limited. @huggingface/jinja parses and evaluates.
// Source: transformers `utils/chat_template_utils.py` for the environment (trim_blocks, lstrip_blocks, raise_exception, strftime_now).
import { codeOf, SparseVilaError } from '../errors';
import type { Json } from '../json';
import { withinTime } from './limit';
import { strftime } from './strftime';

interface Value {
  readonly type: string;
  readonly value: unknown;
}
interface Scope {
  set(name: string, value: unknown): void;
}
interface Evaluator {
  evaluate(statement: unknown, scope: Scope): Value | undefined;
  run(program: unknown): Value;
}
// The package's own type declarations cannot be imported from CommonJS.
const jinja = require('@huggingface/jinja') as {
  Environment: new () => Scope;
  Interpreter: new (scope: Scope) => Evaluator;
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown;
  parse(tokens: unknown): unknown;
};

/** Published templates have at most some 30,000 characters and take some 10,000 steps. */
export const TEMPLATE_LIMITS = {
  /** Characters of the source. */
  source: 2 ** 18,
  /** Evaluated nodes of one rendering. */
  steps: 200_000,
  /** Characters of one text. */
  text: 2 ** 22,
  /** Elements of one list. */
  list: 2 ** 17,
  /** Characters of all texts and elements of all lists of one rendering. */
  sum: 2 ** 26,
  /** Milliseconds of parsing, or of one rendering. */
  time: 1000,
} as const;

/** Renders one template with variables. */
export type Render = (variables: Json) => string;

/**
 * Parses a template. `file` is its name in messages.
 * @throws SparseVilaError `ERR_TEMPLATE_INVALID` if it does not parse, `ERR_TEMPLATE_LIMIT` if it is too long. `Render` throws
 *   `ERR_TEMPLATE_INVALID` with the template's own message (`raise_exception`), and `ERR_TEMPLATE_LIMIT`.
 */
export function parseTemplate(source: string, file: string): Render {
  if (source.length > TEMPLATE_LIMITS.source) throw tooMuch(file, `${TEMPLATE_LIMITS.source} characters of source`);
  const options = { lstrip_blocks: true, trim_blocks: true };
  const program = attempt(file, 'parsing', () => jinja.parse(jinja.tokenize(source, options)));
  return (variables) => attempt(file, 'rendering', () => render(program, variables, file));
}

function render(program: unknown, variables: Json, file: string): string {
  const scope = new jinja.Environment();
  const constants = { true: true, True: true, false: false, False: false, none: null, None: null };
  const functions = { raise_exception: raise, strftime_now: (format: unknown) => strftime(new Date(), format), range };
  for (const [name, value] of Object.entries({ ...constants, ...functions, ...variables })) scope.set(name, value);
  const interpreter = new jinja.Interpreter(scope);
  const evaluate = interpreter.evaluate.bind(interpreter);
  let steps = 0;
  let sum = 0;
  interpreter.evaluate = (statement, within) => {
    if (++steps > TEMPLATE_LIMITS.steps) throw tooMuch(file, `${TEMPLATE_LIMITS.steps} steps`);
    const result = evaluate(statement, within);
    const value = result?.value; // undefined for the first element of an empty list
    const [size, limit] =
      typeof value === 'string'
        ? [value.length, TEMPLATE_LIMITS.text]
        : Array.isArray(value)
          ? [value.length, TEMPLATE_LIMITS.list]
          : [0, 0];
    sum += size;
    if (size > limit) throw tooMuch(file, `${limit} characters or elements of one value`);
    if (sum > TEMPLATE_LIMITS.sum) throw tooMuch(file, `${TEMPLATE_LIMITS.sum} characters and elements in all`);
    return result;
  };
  return String(interpreter.run(program).value);
}

function raise(message: unknown): never {
  throw new Error(typeof message === 'string' ? message : 'raise_exception was called without a text');
}

/** Python's `range`, limited to the maximum length of a list. */
function range(...args: readonly unknown[]): number[] {
  const [start, stop, step = 1] = args.length === 1 ? [0, args[0]] : args;
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(stop) || !Number.isSafeInteger(step) || step === 0)
    throw new Error('range() expects integers, the step not 0');
  const [from, by] = [Number(start), Number(step)];
  const length = Math.max(0, Math.ceil((Number(stop) - from) / by));
  if (length > TEMPLATE_LIMITS.list) throw new SparseVilaError('ERR_TEMPLATE_LIMIT', `range() of ${length} elements`);
  return Array.from({ length }, (_, i) => from + i * by);
}

function tooMuch(file: string, limit: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_TEMPLATE_LIMIT',
    `${file}: expected a chat template that stays within ${limit}. This one is damaged or hostile; give another one.`,
  );
}

function attempt<T>(file: string, what: string, work: () => T): T {
  const slow = `${file}: ${what} the chat template takes too long. It is damaged or hostile; give another one.`;
  try {
    return withinTime(TEMPLATE_LIMITS.time, work, 'ERR_TEMPLATE_LIMIT', slow);
  } catch (cause) {
    if (cause instanceof SparseVilaError && cause.message.startsWith(file)) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    const code = codeOf(cause) === 'ERR_TEMPLATE_LIMIT' ? 'ERR_TEMPLATE_LIMIT' : 'ERR_TEMPLATE_INVALID';
    throw new SparseVilaError(code, `${file}: the chat template failed: ${message}`, { cause });
  }
}
