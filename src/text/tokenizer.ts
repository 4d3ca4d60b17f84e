// Text ↔ token ids of a checkpoint. Encoding is done by @huggingface/tokenizers (identical to the Rust library on the supported vocabularies);
// decoding is done here, so that streaming and decoding a whole text agree by construction. Knows no templates and no models.
// Source: tokenizer.json as documented by huggingface/tokenizers; `transformers` for what a special token is.
import { codeOf, SparseVilaError } from '../errors';
import { configReader, type Json } from '../json';
import { checkValue, TEXT } from '../options';
import { type Section, type Splitter, splitter } from './added_tokens';
import { streamBytes, type TextStream, type TokenBytes, tokenBytes } from './detokenize';
import { withinTime } from './limit';
import { checkRoundTrips } from './probe';
import type { TextRange } from './template';
import { type CheckedTokenizer, checkTokenizer } from './tokenizer_check';
import { readTokenizer } from './tokenizer_file';

export type { TextStream } from './detokenize';

export interface EncodeOptions {
  /** Ranges in which special tokens are ordinary text, such as a user's words (`split_special_tokens` of transformers). */
  readonly plain?: readonly TextRange[];
  /** Whether other text precedes this one, so that its first word is not the first of the text. */
  readonly continues?: boolean;
}

export interface Tokenizer {
  /**
   * Ids of `text`. Markup in it (`<|im_end|>`) becomes its own id, unless it is in a `plain` range; no BOS or EOS is added.
   * @throws SparseVilaError `ERR_TOKENIZER` for a text of which the vocabulary cannot encode a part; `ERR_TOKENIZER_LIMIT`
   */
  encode(text: string, options?: EncodeOptions): number[];
  /** Text of `ids`; `skipSpecial` omits markup. Ids without a token give nothing; bytes that are not UTF-8 give U+FFFD. */
  decode(ids: readonly number[] | Int32Array, options: { skipSpecial: boolean }): string;
  /** Id of a token in the vocabulary's spelling (`<|im_end|>`, `Ġthe`), or undefined. */
  idOf(token: string): number | undefined;
  isSpecial(id: number): boolean;
  /** Ids that the tokenizer puts before a whole prompt (`<s>` for Llama and Vicuna). Not for a prompt whose template already starts with them. */
  readonly prefixIds: readonly number[];
  /** Highest id + 1. A model's logits may be wider, because embeddings are often padded. */
  readonly vocabSize: number;
  /** Characters of the longest token: a text of n characters has at least n / longest tokens. */
  readonly longest: number;
  /** The bytes of single tokens, for streams. */
  readonly bytes: TokenBytes;
}

// The package's own type declarations cannot be imported from CommonJS; this is the part that is used. Added tokens are split off before.
interface Library {
  readonly normalizer: ((text: string) => string) | null;
  readonly pre_tokenizer: ((text: string, options: { section_index: number }) => string[]) | null;
  readonly model: {
    (words: readonly string[]): string[];
    readonly tokens_to_ids: ReadonlyMap<string, number>;
    readonly unk_token_id: number | undefined;
  };
  readonly post_processor: {
    post_process(tokens: readonly string[], pair: null, addSpecialTokens: boolean): { tokens: string[] };
  } | null;
}
const huggingFace = require('@huggingface/tokenizers') as { Tokenizer: new (tokenizer: Json, config: Json) => Library };

const IDS = {
  expected: 'a list of ids',
  accepts: (ids: unknown) => Array.isArray(ids) || ids instanceof Int32Array,
};

/** Milliseconds that encoding may take. Usually it takes one per 1,000 characters, and about 20 for a word of a million. */
const timeFor = (text: string): number => 1000 + text.length / 20;

/** GPT-2's pattern, which a ByteLevel pre-tokenizer uses when the file gives none. */
const GPT2_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/**
 * The tokenizer of a folder with `tokenizer.json` (or a SentencePiece `tokenizer.model`) and an optional `tokenizer_config.json`.
 * @param options.added special tokens to add if the vocabulary lacks them
 * @throws SparseVilaError `ERR_CONFIG_MISSING`, `ERR_CONFIG_INVALID` naming the file; `ERR_TOKENIZER` if text does not survive encoding and
 *   decoding; `ERR_TOKENIZER_LIMIT` if encoding takes too long
 */
export function loadTokenizer(folder: string, options: { added?: readonly string[] } = {}): Tokenizer {
  const { json, file, config } = readTokenizer(folder);
  const checked = withAdded(checkTokenizer(json, file), options.added ?? []);
  const decoder = configReader(json, file).object('decoder');
  if (decoder === undefined) throw configReader(json, file).wrong('decoder', 'a decoder');
  const library = create(checked, config);
  const tokens = new Map<number, string>();
  for (const [token, id] of checked.vocabulary) tokens.set(id, token);
  for (const { content, id } of checked.added) tokens.set(id, content);
  const added = new Map(checked.added.map(({ content, id }) => [content, id]));
  const idOf = (token: string): number | undefined => added.get(token) ?? checked.vocabulary.get(token);
  const bytes = tokenBytes(decoder, tokens, specialIds(checked, config, idOf));
  const encode = encoder(library, checked, idOf);
  const tokenizer: Tokenizer = {
    encode,
    decode: (ids, { skipSpecial }) => {
      checkValue('decode', 'ids', ids, IDS);
      return decode(bytes, ids, skipSpecial);
    },
    idOf,
    isSpecial: bytes.isSpecial,
    prefixIds: prefixIds(library, idOf, file),
    vocabSize: [...tokens.keys()].reduce((size, id) => Math.max(size, id + 1), 0),
    longest: [...tokens.values()].reduce((most, { length }) => Math.max(most, length), 1),
    bytes,
  };
  checkRoundTrips(tokenizer, checked);
  return tokenizer;
}

/** Special tokens that a model's code adds when it loads a tokenizer. New ones get the next ids, beyond the embedding. */
function withAdded(checked: CheckedTokenizer, contents: readonly string[]): CheckedTokenizer {
  const own = checked.added.filter(({ content }) => !contents.includes(content));
  const ids = new Map([...checked.vocabulary, ...checked.added.map(({ content, id }) => [content, id] as const)]);
  let next = [...ids.values()].reduce((size, id) => Math.max(size, id + 1), 0);
  const more = contents.map((content) => {
    const plain = { normalized: false, lstrip: false, rstrip: false, singleWord: false };
    return { content, id: ids.get(content) ?? next++, special: true, ...plain };
  });
  return { ...checked, added: [...own, ...more] };
}

/** Splits off added tokens; the text between them is normalized, split into words and encoded. */
function encoder(
  { normalizer, pre_tokenizer: words, model }: Library,
  { added, file }: CheckedTokenizer,
  idOf: Tokenizer['idOf'],
): Tokenizer['encode'] {
  // Special tokens are searched in the original text. Rust searches those marked `normalized` in the normalized text, where a user's words
  // cannot be told from markup; the ids are equal whenever the normalizer does not change the token.
  const isRaw = ({ special, normalized }: CheckedTokenizer['added'][number]): boolean =>
    special || !normalized || normalizer === null;
  const raw = splitter(added.filter(isRaw), ({ content }) => content);
  const later: Splitter = splitter(
    added.filter((token) => !isRaw(token)),
    ({ content }) => normalizer?.(content) ?? content,
  );
  const idOfPiece = (piece: string): number => {
    const id = idOf(piece) ?? model.unk_token_id;
    if (id !== undefined) return id;
    const message = `${file}: the vocabulary has no token for ${JSON.stringify(piece)}, nor an unknown token.`;
    throw new SparseVilaError('ERR_TOKENIZER', `${message} It is damaged or belongs to another tokenizer.`);
  };
  const encode = (text: string, { plain = [], continues = false }: EncodeOptions): number[] => {
    const ids: number[] = [];
    const stretch = (section: string, index: number): void => {
      const pieces = model(words?.(section, { section_index: index }) ?? [section]);
      for (const piece of pieces) ids.push(idOfPiece(piece));
    };
    for (const [i, section] of raw.split(text, plain).entries()) {
      const parts: Section[] =
        typeof section === 'string' ? later.split(normalizer?.(section) ?? section, []) : [section];
      for (const part of parts) {
        if (typeof part === 'number') ids.push(part);
        else stretch(part, continues ? i + 1 : i);
      }
    }
    return ids;
  };
  return (text, options = {}) => {
    checkValue('encode', 'text', text, TEXT);
    const slow = `${file}: encoding ${text.length} characters takes too long: a pattern of the tokenizer backtracks.`;
    try {
      return withinTime(timeFor(text), () => encode(wellFormed(text), options), 'ERR_TOKENIZER_LIMIT', slow);
    } catch (cause) {
      if (cause instanceof SparseVilaError) throw cause;
      throw failed(file, `encoding ${text.length} characters`, cause);
    }
  };
}

/** With U+FFFD for each half of a surrogate pair, which no UTF-8 text has and which would otherwise miss the vocabulary's own U+FFFD. */
const wellFormed = (text: string): string => text.replace(/\p{Surrogate}/gu, '\ufffd');

const failed = (file: string, what: string, cause: unknown): SparseVilaError => {
  const message = cause instanceof Error ? cause.message : String(cause);
  return new SparseVilaError('ERR_TOKENIZER', `${file}: ${what} failed: ${message}.`, { cause });
};

/**
 * Incremental detokenization of one answer: the concatenation of all `push` results and `flush` equals `decode` of the same ids. Text is
 * emitted at character boundaries only; the cost of a token does not grow with the answer. Markup is skipped by default.
 */
export function textStream(
  tokenizer: Tokenizer,
  options: { skipSpecial: boolean } = { skipSpecial: true },
): TextStream {
  return streamBytes(tokenizer.bytes, options.skipSpecial);
}

function decode(bytes: TokenBytes, ids: readonly number[] | Int32Array, skipSpecial: boolean): string {
  const stream = streamBytes(bytes, skipSpecial);
  let text = '';
  for (const id of ids) text += stream.push(id);
  return text + stream.flush();
}

/** The library's tokenizer without added tokens, and without merges that would form a special token from ordinary text. */
function create({ json, file, added }: CheckedTokenizer, config: Json): Library {
  const model = json.model as Json;
  const special = new Set(added.filter((token) => token.special).map(({ content }) => content));
  const merged = (merge: string | readonly string[]): string =>
    (typeof merge === 'string' ? merge.split(' ') : merge).join('');
  const isFree = (merge: string | readonly string[]): boolean => !special.has(merged(merge));
  const merges = Array.isArray(model.merges) && { merges: (model.merges as string[]).filter(isFree) };
  const optional = { normalizer: null, pre_tokenizer: null, post_processor: null };
  const pre_tokenizer = withExplicitPattern(json.pre_tokenizer ?? null);
  const bare = { ...optional, ...json, added_tokens: [], pre_tokenizer, model: { type: 'BPE', ...model, ...merges } };
  const slow = `${file}: reading the tokenizer takes too long.`;
  const eos = typeof config.eos_token === 'string' ? { eos_token: config.eos_token } : {};
  try {
    return withinTime(60_000, () => new huggingFace.Tokenizer(bare, eos), 'ERR_TOKENIZER_LIMIT', slow);
  } catch (cause) {
    if (codeOf(cause) === 'ERR_TOKENIZER_LIMIT') throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    const text = `${file}: expected a tokenizer of the tokenizers library; ${message}`;
    throw new SparseVilaError('ERR_CONFIG_INVALID', text, { cause });
  }
}

/**
 * The package's built-in GPT-2 pattern treats U+FEFF as white space, as JavaScript's `\s` does and Rust's does not; patterns from the file are
 * translated correctly. Therefore a ByteLevel step with the built-in pattern becomes Split by the same pattern, followed by ByteLevel.
 */
function withExplicitPattern(step: unknown): unknown {
  if (typeof step !== 'object' || step === null || !('type' in step)) return step;
  if (step.type === 'Sequence' && 'pretokenizers' in step && Array.isArray(step.pretokenizers)) {
    return { ...step, pretokenizers: step.pretokenizers.map(withExplicitPattern) };
  }
  const given = { use_regex: true, add_prefix_space: true, ...step };
  if (step.type !== 'ByteLevel' || !given.use_regex || given.add_prefix_space) return step;
  const split = { type: 'Split', pattern: { Regex: GPT2_PATTERN }, behavior: 'Isolated', invert: false };
  return { type: 'Sequence', pretokenizers: [split, { ...step, use_regex: false }] };
}

/** Added tokens marked special, and the `additional_special_tokens` of the config. */
function specialIds({ added }: CheckedTokenizer, config: Json, idOf: Tokenizer['idOf']): Set<number> {
  const special = new Set(added.filter((token) => token.special).map(({ id }) => id));
  const additional: unknown = config.additional_special_tokens ?? [];
  for (const token of (Array.isArray(additional) ? additional : []) as readonly (Json | string | null)[]) {
    const id = idOf(typeof token === 'string' ? token : String(token?.content));
    if (id !== undefined) special.add(id);
  }
  return special;
}

/** The ids that the post-processor puts before a text. */
function prefixIds({ post_processor: processor }: Library, idOf: Tokenizer['idOf'], file: string): number[] {
  if (processor === null) return [];
  const word = 'sparsevila-word';
  let framed: string[];
  try {
    framed = processor.post_process([word], null, true).tokens;
  } catch (cause) {
    throw failed(file, 'the post-processor', cause);
  }
  return framed.slice(0, Math.max(0, framed.indexOf(word))).map((token) => {
    const id = idOf(token);
    if (id !== undefined) return id;
    throw new SparseVilaError(
      'ERR_CONFIG_INVALID',
      `${file}: expected tokens of the vocabulary in the post-processor, received ${JSON.stringify(token)}`,
    );
  });
}
