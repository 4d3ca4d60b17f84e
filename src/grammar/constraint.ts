// Holds an answer to a format: which tokens may come next, and whether the text so far is complete.

import { received, SparseVilaError } from '../errors';
import { ANYTHING, checkOptions, invalidOption, OBJECT, oneOf } from '../options';
import type { Tokenizer } from '../text/tokenizer';
import { bounded } from './effort';
import { type Expression, type Expressions, expressions } from './expression';
import { type Masks, masks } from './masks';
import { schemaExpression } from './schema';
import { type Vocabulary, vocabularyOf } from './vocabulary';

/** What an answer must be: a JSON object or list, or a JSON text that a schema accepts. */
export type AnswerFormat =
  | { readonly type: 'json' }
  | { readonly type: 'schema'; readonly schema: Readonly<Record<string, unknown>> };

/** A copy of a format, checked. @throws SparseVilaError as `compileFormat` */
export function checkFormat(format: unknown): AnswerFormat {
  const expected = '{ type: "json" } or { type: "schema", schema } for format';
  if (!OBJECT.accepts(format)) throw invalidOption('ask', expected, received(format));
  let copy: AnswerFormat;
  try {
    copy = JSON.parse(JSON.stringify(format)) as AnswerFormat;
  } catch (cause) {
    const message = 'format: expected a schema that is JSON, received one that JSON cannot hold.';
    throw new SparseVilaError('ERR_OPTION_INVALID', message, { cause });
  }
  // JSON of an object may be null or a text: a date's is.
  if (!OBJECT.accepts(copy)) throw invalidOption('ask', expected, received(format));
  compileFormat(copy);
  return copy;
}

/** A format that was checked, with its expression. */
export interface CheckedFormat {
  readonly e: Expressions;
  readonly start: Expression;
}

export interface Constraint {
  /**
   * One bit for each id that may come next, in words of 32. Stop ids may come where the text is complete. Not to be changed; often the same array for
   * equal bits.
   */
  allowed(): Uint32Array;
  /** Takes the next token, one of the allowed. */
  accept(id: number): void;
  /** An independent constraint on the text so far. */
  fork(): Constraint;
  /** Whether the text is complete and nothing can follow. */
  readonly isOver: boolean;
}

/** What a constraint reads of a model. */
export interface ConstrainedModel {
  readonly tokenizer: Pick<Tokenizer, 'bytes'>;
  readonly stopIds: readonly number[];
  readonly decoder: { readonly config: { readonly vocabSize: number } };
}

/** Maximum number of characters of a schema as JSON. */
const MOST_CHARACTERS = 500_000;
/** Number of formats that are kept with their masks. */
const KEPT_FORMATS = 16;

/**
 * Checks a format and makes its expression; one that was made before is found again.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING` for a schema that is invalid, unsupported, too large, or that no text satisfies
 */
export function compileFormat(format: AnswerFormat): CheckedFormat {
  const type = { ...oneOf('json', 'schema'), required: true as const };
  if (format.type === 'schema') checkOptions('format', format, { type, schema: { ...ANYTHING, required: true } });
  else checkOptions('format', format, { type });
  const text = format.type === 'json' ? '{"type":["object","array"]}' : JSON.stringify(format.schema);
  if (text.length > MOST_CHARACTERS)
    throw invalidOption('format', `a schema of at most ${MOST_CHARACTERS} characters`, `one of ${text.length}`);
  const known = formats.get(text);
  // Expressions are added while answers are written.
  const found = known !== undefined && known.e.filled < 0.25 ? known : compiled(text);
  formats.delete(text);
  formats.set(text, found);
  for (const oldest of formats.keys()) {
    if (formats.size <= KEPT_FORMATS) break;
    formats.delete(oldest);
  }
  return found;
}

const formats = new Map<string, CheckedFormat>();

function compiled(text: string): CheckedFormat {
  const e = expressions();
  return { e, start: bounded(() => schemaExpression(e, JSON.parse(text))) };
}

interface Prepared {
  readonly vocabulary: Vocabulary;
  /** Masks by format. */
  readonly masks: WeakMap<Expressions, Masks>;
  /** Masks of states in which the text is complete, with the stop ids, by those without them. */
  readonly closed: WeakMap<Uint32Array, Uint32Array>;
  /** Masks that allow some id. */
  readonly open: WeakSet<Uint32Array>;
}

const prepared = new WeakMap<object, Prepared>();

/** A constraint at the beginning of an answer. The vocabulary of a model is read when it is first needed. */
export function constraintOf(model: ConstrainedModel, { e, start }: CheckedFormat): Constraint {
  const { tokenizer, stopIds, decoder } = model;
  const stops = new Set(stopIds);
  const known = prepared.get(tokenizer.bytes) ?? {
    vocabulary: vocabularyOf(tokenizer.bytes, decoder.config.vocabSize, (id) => stops.has(id)),
    ...{ masks: new WeakMap(), closed: new WeakMap(), open: new WeakSet() },
  };
  prepared.set(tokenizer.bytes, known);
  const own = known.masks.get(e) ?? masks(e, known.vocabulary);
  known.masks.set(e, own);
  // A SentencePiece vocabulary writes a space before a text, which the stream of the answer removes.
  const begin = e.sequence(e.repeat(e.byte(0x20), 0, tokenizer.bytes.leadingSpaces), start);
  return constraintAt(begin, { e, own, tokenizer, stopIds, known });
}

interface ConstraintContext extends Pick<ConstrainedModel, 'tokenizer' | 'stopIds'> {
  readonly e: Expressions;
  readonly own: Masks;
  readonly known: Pick<Prepared, 'closed' | 'open'>;
}

/** A constraint after some text: what may still come is the expression `state`. */
function constraintAt(state: Expression, context: ConstraintContext): Constraint {
  const { e, own, tokenizer, stopIds, known } = context;
  return {
    allowed: () => {
      const bits = bounded(() => own.allowed(state));
      const all = state.nullable ? (known.closed.get(bits) ?? withIds(bits, stopIds)) : bits;
      if (state.nullable) known.closed.set(bits, all);
      if (known.open.has(all)) return all;
      if (all.some((word) => word !== 0)) {
        known.open.add(all);
        return all;
      }
      throw new SparseVilaError(
        'ERR_TOKENIZER',
        'No token of the vocabulary continues the JSON text: it has no tokens of single characters.',
      );
    },
    accept: (id) => {
      for (const byte of tokenizer.bytes.bytesOf(id)) state = e.derivative(state, byte);
    },
    fork: () => constraintAt(state, context),
    get isOver() {
      return state === e.empty;
    },
  };
}

function withIds(bits: Uint32Array, ids: readonly number[]): Uint32Array {
  const all = bits.slice();
  for (const id of ids) all[id >> 5] = (all[id >> 5] ?? 0) | (1 << (id & 31));
  return all;
}
