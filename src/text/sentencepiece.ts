// Converts a SentencePiece model of Llama's kind (BPE with byte fallback, without normalization) to the tokenizer.json that transformers would
// make: the merges are all pairs of pieces that form a piece, best score first.
// Source: sentencepiece_model.proto; transformers `convert_slow_tokenizer.py` (LlamaConverter, legacy=False, which VILA's loader asks for).
import { dirname } from 'node:path';
import { SparseVilaError } from '../errors';
import { readFileBounded } from '../files';
import type { Json } from '../json';
import { type Field, fieldsOf } from './protobuf';

interface Piece {
  readonly text: string;
  readonly score: number;
  readonly type: number;
}

/** Maximum size of a model; the largest published ones have about 5 MB. */
const MAX_BYTES = 2 ** 26;
const PIECE_TYPES = { unknown: 2, control: 3, userDefined: 4 } as const;
const BPE = 2;
const UTF8 = new TextDecoder();

/**
 * @param config tokenizer_config.json
 * @throws SparseVilaError `ERR_CONFIG_MISSING`; `ERR_CONFIG_INVALID` for a file that is not a SentencePiece model; `ERR_CONFIG_UNSUPPORTED`
 *   for another kind of model, with the command that makes a tokenizer.json of it
 */
export function sentencePieceTokenizer(file: string, config: Json): Json {
  const limits = { limit: MAX_BYTES, missing: 'ERR_CONFIG_MISSING', unreadable: 'ERR_CONFIG_INVALID' } as const;
  const bytes = readFileBounded(file, { what: 'a SentencePiece model', ...limits });
  const { pieces, trainer, normalizer } = parse(bytes, file);
  checkKind(trainer, normalizer, config, file);
  const vocab = Object.fromEntries(pieces.map(({ text }, id) => [text, id]));
  const unknown = pieces.find(({ type }) => type === PIECE_TYPES.unknown)?.text;
  const added = pieces.flatMap(({ text, type }, id) => {
    const special = type === PIECE_TYPES.control || type === PIECE_TYPES.unknown;
    return special || type === PIECE_TYPES.userDefined ? [{ id, content: text, special, normalized: false }] : [];
  });
  const prefixed = config.add_prefix_space !== false;
  const strip = prefixed ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : [];
  return {
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: {
      type: 'Metaspace',
      replacement: '▁',
      prepend_scheme: prefixed ? 'first' : 'never',
      split: false,
    },
    post_processor: framing(config, vocab),
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...strip,
      ],
    },
    model: {
      type: 'BPE',
      vocab,
      merges: mergesOf(pieces),
      unk_token: unknown ?? null,
      fuse_unk: true,
      byte_fallback: true,
    },
  };
}

/** All pairs of pieces that form a piece: best score first, then the longer left part, then the longer right part. */
function mergesOf(pieces: readonly Piece[]): [left: string, right: string][] {
  const ids = new Map(pieces.map(({ text }, id) => [text, id]));
  const merges: { left: string; right: string; score: number; lengths: [left: number, right: number] }[] = [];
  for (const { text, score } of pieces) {
    const characters = Array.from(text);
    const local: typeof merges = [];
    let left = '';
    for (let i = 1; i < characters.length; i++) {
      left += characters[i - 1];
      const right = text.slice(left.length);
      if (ids.has(left) && ids.has(right)) local.push({ left, right, score, lengths: [i, characters.length - i] });
    }
    const idOf = (piece: string): number => ids.get(piece) ?? 0;
    local.sort((a, b) => idOf(a.left) - idOf(b.left) || idOf(a.right) - idOf(b.right));
    for (const merge of local) merges.push(merge);
  }
  merges.sort((a, b) => b.score - a.score || b.lengths[0] - a.lengths[0] || b.lengths[1] - a.lengths[1]);
  return merges.map(({ left, right }) => [left, right]);
}

/** `<s>` before and `</s>` after a prompt, as tokenizer_config.json says; by default only the first. */
function framing({ add_bos_token: start, add_eos_token: end, bos_token, eos_token }: Json, vocab: Json): Json {
  const textOf = (token: unknown, usual: string): string => {
    const text = typeof token === 'object' && token !== null && 'content' in token ? token.content : token;
    return typeof text === 'string' && text in vocab ? text : usual;
  };
  const special = (id: string): Json => ({ SpecialToken: { id, type_id: 0 } });
  return {
    type: 'TemplateProcessing',
    single: [
      ...(start !== false ? [special(textOf(bos_token, '<s>'))] : []),
      { Sequence: { id: 'A', type_id: 0 } },
      ...(end === true ? [special(textOf(eos_token, '</s>'))] : []),
    ],
  };
}

function parse(bytes: Uint8Array, file: string): { pieces: Piece[]; trainer: Field[]; normalizer: Field[] } {
  try {
    const fields = fieldsOf(bytes);
    const message = (number: number): Field[] => fieldsOf(bytesOf(fields.findLast((field) => field.number === number)));
    const pieces = fields.filter(({ number }) => number === 1).map((field) => pieceOf(fieldsOf(bytesOf(field))));
    if (pieces.length === 0) throw new Error('it has no pieces');
    const texts = new Set(pieces.map(({ text }) => text));
    if (texts.size < pieces.length) throw new Error('a piece occurs twice');
    return { pieces, trainer: message(2), normalizer: message(3) };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SparseVilaError('ERR_CONFIG_INVALID', `${file}: expected a SentencePiece model, but ${reason}.`, {
      cause,
    });
  }
}

function pieceOf(fields: readonly Field[]): Piece {
  const find = (number: number): Field | undefined => fields.findLast((field) => field.number === number);
  const score = bytesOf(find(2), 4);
  return {
    text: UTF8.decode(bytesOf(find(1))),
    score: new DataView(score.buffer, score.byteOffset, 4).getFloat32(0, true),
    type: numberOf(find(3), 1),
  };
}

function bytesOf(field: Field | undefined, length = 0): Uint8Array {
  const value = field?.value ?? new Uint8Array(length);
  if (typeof value === 'number' || (length > 0 && value.length !== length)) throw new Error('a field has another type');
  return value;
}

function numberOf(field: Field | undefined, fallback: number): number {
  const value = field?.value ?? fallback;
  if (typeof value !== 'number') throw new Error('a field has another type');
  return value;
}

/** Refuses a model that is not of Llama's kind. */
function checkKind(trainer: readonly Field[], normalizer: readonly Field[], config: Json, file: string): void {
  const field = (fields: readonly Field[], number: number) => fields.findLast((one) => one.number === number);
  const isBpe = numberOf(field(trainer, 3), 1) === BPE;
  const fallsBack = numberOf(field(trainer, 35), 0) !== 0;
  const type = String(config.tokenizer_class ?? 'LlamaTokenizer');
  const isLlama = /^Llama(Tokenizer|TokenizerFast)$/.test(type);
  if (isLlama && !isBpe && fallsBack) throw unsupported(file, 'Unigram with byte fallback, which is not implemented.');
  if (isLlama && bytesOf(field(normalizer, 2)).length > 0) throw unsupported(file, 'a normalizer of its own.');
  if (isLlama && isBpe && fallsBack) return;
  const folder = dirname(file);
  const kind = !isLlama ? `the tokenizer_class ${type}` : isBpe ? 'no byte fallback' : 'Unigram';
  const command = `from transformers import AutoTokenizer as A; d = ${JSON.stringify(folder)}; A.from_pretrained(d, use_fast=True, legacy=False).save_pretrained(d)`;
  throw unsupported(
    file,
    `${kind}. Make a tokenizer.json of it: pip install "transformers<5" sentencepiece protobuf && python3 -c '${command}'`,
  );
}

function unsupported(file: string, kind: string): SparseVilaError {
  const expected = "a SentencePiece model of Llama's kind (BPE with byte fallback)";
  return new SparseVilaError('ERR_CONFIG_UNSUPPORTED', `${file}: expected ${expected}, received one with ${kind}`);
}
