// Checks a tokenizer.json before the library reads it: ids that fit an array, merges of existing tokens, components that the library runs as
// the Rust library does, and bounds on the growth of texts. Encodes no text.
// Source: tokenizers 0.23 (Rust) `models/bpe`, `normalizers`, `pre_tokenizers`, `processors`; what @huggingface/tokenizers implements of them.
import { type ConfigReader, configReader, type Json } from '../json';

export interface AddedToken {
  readonly content: string;
  readonly id: number;
  readonly special: boolean;
  readonly normalized: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly singleWord: boolean;
}

export interface CheckedTokenizer {
  readonly json: Json;
  readonly file: string;
  /** Tokens of the model, without added tokens. */
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly added: readonly AddedToken[];
}

/** Limit on ids, which are array indices in the library. The largest published vocabularies have about 260,000 tokens. */
const MAX_ID = 2 ** 22;
/** Maximum number of characters of a pattern or of an inserted text. */
const MAX_TEXT = 4096;
const MAX_DEPTH = 8;
const MAX_STEPS = 64;
/** Maximum growth of a text by normalization. NFKD alone can turn one character into 18. */
const MAX_GROWTH = 64;

/** @throws SparseVilaError `ERR_CONFIG_INVALID` naming the file and the key */
export function checkTokenizer(json: Json, file: string): CheckedTokenizer {
  const reader = configReader(json, file);
  const model = reader.object('model');
  if (model === undefined) throw reader.wrong('model', 'a tokenizer of the tokenizers library with a model');
  const type = model.oneOf('type', ['BPE', 'Unigram', 'WordPiece'] as const, 'BPE');
  const vocabulary = type === 'Unigram' ? unigramVocabulary(model) : vocabularyOf(model);
  if (type === 'BPE') checkBpe(model, vocabulary);
  else if (model.boolean('byte_fallback', false))
    throw model.wrong('byte_fallback', `false: it is not implemented for ${type}`);
  const unknown = model.json.unk_token ?? undefined;
  if (unknown !== undefined && typeof unknown !== 'string') throw model.wrong('unk_token', 'a token');
  const added = addedTokens(reader, vocabulary);
  checkNormalizer(reader);
  walk(reader, 'pre_tokenizer', 'pretokenizers', checkPreTokenizer);
  walk(reader, 'post_processor', 'processors', checkPostProcessor);
  return { json, file, vocabulary, added };
}

function vocabularyOf(model: ConfigReader): Map<string, number> {
  const entries = model.object('vocab');
  if (entries === undefined)
    throw model.wrong('vocab', 'a tokenizer of the tokenizers library: an object of tokens and ids');
  const vocabulary = new Map<string, number>();
  const owners = new Map<number, string>();
  for (const [token, id] of Object.entries(entries.json)) {
    if (!isId(id)) throw entries.wrong(token, `an id from 0 to ${MAX_ID - 1}`);
    const other = owners.get(id);
    if (other !== undefined) throw entries.wrong(token, `an id other than that of ${JSON.stringify(other)}`);
    owners.set(id, token);
    vocabulary.set(token, id);
  }
  if (vocabulary.size === 0) throw model.wrong('vocab', 'at least one token');
  return vocabulary;
}

function unigramVocabulary(model: ConfigReader): Map<string, number> {
  const list = model.json.vocab;
  const isPiece = (piece: unknown): piece is [string, number] =>
    Array.isArray(piece) && typeof piece[0] === 'string' && typeof piece[1] === 'number';
  if (!Array.isArray(list) || list.length === 0 || list.length > MAX_ID || !list.every(isPiece))
    throw model.wrong('vocab', 'a list of [token, score]');
  const unknown = model.json.unk_id ?? undefined;
  if (unknown !== undefined && !(isId(unknown) && unknown < list.length))
    throw model.wrong('unk_id', 'an index of the vocabulary');
  const vocabulary = new Map(list.map(([token], id) => [token, id] as const));
  if (vocabulary.size < list.length) throw model.wrong('vocab', 'no token twice');
  return vocabulary;
}

function checkBpe(model: ConfigReader, vocabulary: ReadonlyMap<string, number>): void {
  const merges = model.json.merges;
  if (!Array.isArray(merges)) throw model.wrong('merges', 'a list of pairs');
  for (const [i, merge] of merges.entries()) {
    const pair: readonly unknown[] = typeof merge === 'string' ? merge.split(' ') : Array.isArray(merge) ? merge : [];
    const [left, right] = pair;
    const known = typeof left === 'string' && typeof right === 'string' && pair.length === 2;
    if (known && vocabulary.has(left) && vocabulary.has(right) && vocabulary.has(left + right)) continue;
    throw configReader({ [i]: merge }, model.file, 'model.merges.').wrong(
      String(i),
      'two tokens of the vocabulary that make a third',
    );
  }
  for (const key of ['continuing_subword_prefix', 'continuing_subword_suffix', 'end_of_word_suffix']) {
    if ((model.json[key] ?? '') !== '') throw model.wrong(key, 'nothing, as the models that are supported have');
  }
  if ((model.json.dropout ?? 0) !== 0) throw model.wrong('dropout', 'null: dropout is for training');
  for (const key of ['byte_fallback', 'fuse_unk', 'ignore_merges']) model.boolean(key, false);
}

function addedTokens(file: ConfigReader, vocabulary: ReadonlyMap<string, number>): AddedToken[] {
  const list: unknown = file.json.added_tokens ?? [];
  if (!Array.isArray(list) || list.length > MAX_ID) throw file.wrong('added_tokens', 'an array');
  const owners = new Map<number, string>();
  for (const [token, id] of vocabulary) owners.set(id, token);
  const ids = new Map(vocabulary);
  return list.map((entry: unknown, i) => {
    const token = configReader(Object(entry), file.file, `added_tokens.${i}.`);
    const content = token.string('content');
    const id = token.json.id;
    if (content === '' || content.length > MAX_TEXT) throw token.wrong('content', `1 to ${MAX_TEXT} characters`);
    if (!isId(id)) throw token.wrong('id', `an integer from 0 to ${MAX_ID - 1}`);
    const owner = owners.get(id) ?? content;
    if (owner !== content) throw token.wrong('id', `an id other than that of ${JSON.stringify(owner)}`);
    if ((ids.get(content) ?? id) !== id)
      throw token.wrong('id', `${ids.get(content)}, which ${JSON.stringify(content)} has elsewhere`);
    owners.set(id, content);
    ids.set(content, id);
    const special = token.boolean('special', false);
    return {
      content,
      id,
      special,
      normalized: token.boolean('normalized', !special),
      lstrip: token.boolean('lstrip', false),
      rstrip: token.boolean('rstrip', false),
      singleWord: token.boolean('single_word', false),
    };
  });
}

/** Calls `check` on a component, or on each of a Sequence. */
function walk(owner: ConfigReader, key: string, list: string, check: (step: ConfigReader) => void): void {
  let steps = 0;
  const visit = (step: ConfigReader, depth: number): void => {
    if (++steps > MAX_STEPS || depth > MAX_DEPTH)
      throw step.wrong('type', `at most ${MAX_STEPS} steps, ${MAX_DEPTH} deep`);
    if (step.string('type') !== 'Sequence') {
      check(step);
      return;
    }
    const parts: unknown = step.json[list] ?? [];
    if (!Array.isArray(parts)) throw step.wrong(list, 'an array');
    for (const [i, part] of parts.entries())
      visit(configReader(Object(part), owner.file, `${key}.${list}.${i}.`), depth + 1);
  };
  const first = owner.object(key);
  if (first !== undefined) visit(first, 1);
}

function checkNormalizer(file: ConfigReader): void {
  let growth = 1;
  let unicode = false;
  walk(file, 'normalizer', 'normalizers', (step) => {
    const types = ['NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase', 'Strip', 'StripAccents', 'BertNormalizer', 'Precompiled'];
    const type = known(step, [...types, 'Replace', 'Prepend'], 'normalizer');
    // Composing and decomposing again adds nothing to the length.
    if (/^NF|Precompiled/.test(type) && !unicode) {
      unicode = true;
      growth *= 18;
    }
    if (type === 'BertNormalizer') growth *= 3;
    if (type === 'Replace') growth *= replacementGrowth(step);
    if (type === 'Prepend' && step.string('prepend').length > 16) throw step.wrong('prepend', 'at most 16 characters');
    if (growth > 18 * MAX_GROWTH)
      throw file.wrong('normalizer', `steps that lengthen a text at most ${MAX_GROWTH} times`);
  });
}

function replacementGrowth(step: ConfigReader): number {
  const { length } = step.string('content');
  const pattern = patternOf(step);
  // A regular expression may match between any two characters.
  const growth = typeof pattern === 'string' ? length / Math.max(1, pattern.length) : length + 1;
  if (growth > MAX_GROWTH)
    throw step.wrong('content', `text that is at most ${MAX_GROWTH} times as long as its pattern`);
  return Math.max(1, growth);
}

/** The text of a String pattern; undefined for a regular expression. */
function patternOf(step: ConfigReader): string | undefined {
  const pattern = step.object('pattern');
  const text = pattern?.json.String ?? undefined;
  const source = pattern?.json.Regex ?? text;
  if (pattern === undefined || typeof source !== 'string' || source === '' || source.length > MAX_TEXT)
    throw step.wrong('pattern', `{"String": …} or {"Regex": …} of 1 to ${MAX_TEXT} characters`);
  return typeof text === 'string' && pattern.json.Regex === undefined ? text : undefined;
}

function checkPreTokenizer(step: ConfigReader): void {
  const types = [
    'BertPreTokenizer',
    'Whitespace',
    'WhitespaceSplit',
    'Metaspace',
    'ByteLevel',
    'Punctuation',
    'Digits',
  ];
  const type = known(step, [...types, 'Split', 'FixedLength'], 'pre-tokenizer');
  if (type === 'FixedLength') step.size('length');
  if (type === 'ByteLevel') for (const key of ['add_prefix_space', 'use_regex']) step.boolean(key, true);
  if (type === 'Metaspace') {
    if (step.string('replacement', '▁') === '') throw step.wrong('replacement', 'a character');
    step.oneOf('prepend_scheme', ['first', 'always', 'never'] as const, 'always');
  }
  if (type !== 'Split') return;
  const text = patternOf(step);
  step.boolean('invert', false);
  const behavior = step.string('behavior', 'Isolated');
  // The library splits off the texts that these options would join; Gemma's file splits at single spaces, all of which its normalizer has replaced.
  const joins = !['Isolated', 'Removed'].includes(behavior) && !(behavior === 'MergedWithPrevious' && text === ' ');
  if (joins) throw step.wrong('behavior', 'Isolated or Removed');
}

function checkPostProcessor(step: ConfigReader): void {
  const types = ['TemplateProcessing', 'ByteLevel', 'BertProcessing', 'RobertaProcessing'];
  const type = known(step, types, 'post-processor');
  if (type === 'BertProcessing' || type === 'RobertaProcessing') {
    for (const key of ['cls', 'sep']) {
      const [token] = Array.isArray(step.json[key]) ? (step.json[key] as readonly unknown[]) : [];
      if (typeof token !== 'string') throw step.wrong(key, 'a list of a token and its id');
    }
  }
  if (type !== 'TemplateProcessing') return;
  const single = step.json.single;
  const isPiece = (piece: unknown): boolean => {
    const { SpecialToken, Sequence } = Object(piece) as Record<'SpecialToken' | 'Sequence', unknown>;
    return typeof Object(SpecialToken ?? Sequence).id === 'string';
  };
  if (!Array.isArray(single) || single.length > MAX_STEPS || !single.every(isPiece))
    throw step.wrong('single', 'a list of {"SpecialToken": …} and {"Sequence": …}');
}

function known(step: ConfigReader, types: readonly string[], what: string): string {
  const type = step.string('type');
  if (types.includes(type)) return type;
  throw step.wrong('type', `a ${what} of ${types.join(', ')} or Sequence`);
}

const isId = (id: unknown): id is number => Number.isSafeInteger(id) && Number(id) >= 0 && Number(id) < MAX_ID;
