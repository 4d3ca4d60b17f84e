// Text ↔ token ids of a checkpoint. Encoding is @huggingface/tokenizers (identical to the Rust library on our families' vocabularies);
// decoding is our own, so that a stream and a whole decode are the same text by construction. Knows no templates and no models.
// Source: tokenizer.json as documented by huggingface/tokenizers; `transformers` for what a special token is.
import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { type ConfigReader, configReader, type Json, readJson } from '../json';
import { streamBytes, type TextStream, type TokenBytes, tokenBytes } from './detokenize';

export type { TextStream } from './detokenize';

export interface Tokenizer {
  /** Ids of `text`. Markup in it (`<|im_end|>`) becomes its own id; nothing (BOS, EOS) is added. */
  encode(text: string): number[];
  /** Text of `ids`; `skipSpecial` leaves markup out. Ids without a token give nothing, bytes that are not UTF-8 give U+FFFD. */
  decode(ids: readonly number[] | Int32Array, options: { skipSpecial: boolean }): string;
  /** Id of a token as the vocabulary writes it (`<|im_end|>`, `Ġthe`), or undefined. */
  idOf(token: string): number | undefined;
  isSpecial(id: number): boolean;
  /** What the tokenizer puts before a whole prompt (`<s>` for Llama and Vicuna). Not for a prompt whose template already starts with it. */
  readonly prefixIds: readonly number[];
  /** Highest id + 1. A model's logits may be wider: embeddings are often padded. */
  readonly vocabSize: number;
  /** Bytes of single tokens, for streams. */
  readonly bytes: TokenBytes;
}

// The package's own declarations cannot be imported from CommonJS; this is all of it that we use.
interface HuggingFaceTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  token_to_id(token: string): number | undefined;
  get_vocab(withAddedTokens: boolean): Map<string | undefined, number>;
}
const huggingFace = require('@huggingface/tokenizers') as {
  Tokenizer: new (tokenizer: Json, config: Json) => HuggingFaceTokenizer;
};

/** GPT-2's pattern, which a ByteLevel pre-tokenizer uses when the file gives none. */
const GPT2_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/**
 * The tokenizer of a folder with `tokenizer.json` and, if there is one, `tokenizer_config.json`.
 * @throws SparseVilaError `ERR_CONFIG_MISSING` or `ERR_CONFIG_INVALID` naming the file (a slow tokenizer's `tokenizer.model` alone is not enough).
 */
export function loadTokenizer(folder: string): Tokenizer {
  const file = join(folder, 'tokenizer.json');
  const json = readJson(file);
  const configFile = join(folder, 'tokenizer_config.json');
  const config = readOptional(configFile);
  const tokenizer = create(json, config, file);
  const vocabulary = [...tokenizer.get_vocab(true)];
  const tokens = new Map<number, string>();
  for (const [token, id] of vocabulary) if (token !== undefined) tokens.set(id, token);
  const special = specialIds(configReader(json, file), config, tokenizer);
  const decoder = configReader(json, file).object('decoder');
  if (decoder === undefined) throw configReader(json, file).wrong('decoder', 'a decoder');
  const bytes = tokenBytes(decoder, tokens, special);
  return {
    encode: (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
    decode: (ids, { skipSpecial }) => decode(bytes, ids, skipSpecial),
    idOf: (token) => tokenizer.token_to_id(token),
    isSpecial: bytes.isSpecial,
    prefixIds: prefixIds(tokenizer),
    vocabSize: vocabulary.reduce((size, [, id]) => Math.max(size, id + 1), 0),
    bytes,
  };
}

/**
 * Incremental detokenisation of one answer: the concatenation of every `push` and of `flush` equals `decode` of the same ids.
 * Text comes out at character boundaries only; the cost of a token does not grow with the answer. Markup is skipped unless told otherwise.
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

function readOptional(file: string): Json {
  try {
    return readJson(file);
  } catch (error) {
    if (error instanceof SparseVilaError && error.code === 'ERR_CONFIG_MISSING') return {};
    throw error;
  }
}

function create(json: Json, config: Json, file: string): HuggingFaceTokenizer {
  try {
    return new huggingFace.Tokenizer({ ...json, pre_tokenizer: withExplicitPattern(json.pre_tokenizer) }, config);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new SparseVilaError(
      'ERR_CONFIG_INVALID',
      `${file}: expected a tokenizer of the tokenizers library; ${message}`,
      {
        cause,
      },
    );
  }
}

/**
 * The package's built-in GPT-2 pattern takes U+FEFF for white space, as JavaScript's `\s` does and Rust's does not; patterns that come from the
 * file are translated rightly. So a ByteLevel step that relies on the built-in one becomes Split by the same pattern, then ByteLevel.
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
function specialIds(file: ConfigReader, config: Json, tokenizer: HuggingFaceTokenizer): Set<number> {
  const special = new Set<number>();
  const added: unknown = file.json.added_tokens ?? [];
  if (!Array.isArray(added)) throw file.wrong('added_tokens', 'an array');
  for (const token of added as readonly (Json | null)[]) {
    if (token?.special === true && typeof token.id === 'number') special.add(token.id);
  }
  const additional: unknown = config.additional_special_tokens ?? [];
  for (const token of (Array.isArray(additional) ? additional : []) as readonly (Json | string | null)[]) {
    const id = tokenizer.token_to_id(typeof token === 'string' ? token : String(token?.content));
    if (id !== undefined) special.add(id);
  }
  return special;
}

/** What the post-processor puts before a text: the ids in front of those of the text itself. */
function prefixIds(tokenizer: HuggingFaceTokenizer): number[] {
  const plain = tokenizer.encode('a', { add_special_tokens: false }).ids;
  const framed = tokenizer.encode('a', { add_special_tokens: true }).ids;
  const start = framed.findIndex((_, i) => plain.every((id, j) => framed[i + j] === id));
  return framed.slice(0, Math.max(0, start));
}
