// Decodes token ids to text, exactly and incrementally: each supported decoder of tokenizer.json is compiled to the bytes of each token, and
// UTF-8 decoding does the rest. Knows nothing about encoding, models or the meaning of special tokens.
// Source: tokenizers 0.23 (Rust) `decoders/{byte_level,byte_fallback,metaspace,strip}.rs`; GPT-2's byte ↔ character table.
// One difference: in a run of byte-fallback tokens that is not UTF-8, valid characters stay and each invalid part becomes one U+FFFD (WHATWG);
// Rust turns every byte of the run into U+FFFD, which is known only when the run ends.
import { type ConfigReader, configReader } from '../json';

/** The properties of a vocabulary that detokenization needs. */
export interface TokenBytes {
  /** The UTF-8 bytes of a token, possibly a part of a character; empty for an id without a token. */
  bytesOf(id: number): Uint8Array;
  /** True for tokens that are markup, not text: `<|im_end|>`, `<image>`, … */
  isSpecial(id: number): boolean;
  /** Number of leading spaces that decoding strips from a text: 1 for SentencePiece-like vocabularies, else 0. */
  readonly leadingSpaces: number;
}

export interface TextStream {
  /** Adds one token and returns the text that is now complete, ending at a character boundary; '' while a character is incomplete. */
  push(id: number): string;
  /** Ends the text: an incomplete character becomes U+FFFD. The stream can then decode another text. */
  flush(): string;
}

interface Pieces {
  toBytes(token: string): Uint8Array;
  leadingSpaces: number;
}

const NO_BYTES = new Uint8Array(0);
const UTF8 = new TextEncoder();

/**
 * Compiles the `decoder` of a tokenizer.json for its tokens by id; added tokens are decoded like all others, as in Rust.
 * @throws SparseVilaError `ERR_CONFIG_INVALID` for a decoder other than ByteLevel, Metaspace or the SentencePiece-like Sequence
 */
export function tokenBytes(
  decoder: ConfigReader,
  tokens: ReadonlyMap<number, string>,
  special: ReadonlySet<number>,
): TokenBytes {
  const { toBytes, leadingSpaces } = compile(decoder);
  const cache = new Map<number, Uint8Array>();
  const bytesOf = (id: number): Uint8Array => {
    const known = cache.get(id);
    if (known !== undefined) return known;
    const token = tokens.get(id);
    if (token === undefined) return NO_BYTES;
    const bytes = toBytes(token);
    cache.set(id, bytes);
    return bytes;
  };
  return { bytesOf, isSpecial: (id) => special.has(id), leadingSpaces };
}

/** Incremental decoding at a constant cost per token; special tokens give no text if `skipSpecial`. */
export function streamBytes(vocabulary: TokenBytes, skipSpecial: boolean): TextStream {
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  let spaces = vocabulary.leadingSpaces;
  const strip = (text: string): string => {
    let start = 0;
    while (spaces > 0 && text[start] === ' ') {
      start++;
      spaces--;
    }
    if (text.length > start) spaces = 0;
    return text.slice(start);
  };
  return {
    push: (id) => {
      if (skipSpecial && vocabulary.isSpecial(id)) return '';
      return strip(utf8.decode(vocabulary.bytesOf(id), { stream: true }));
    },
    flush: () => {
      const rest = strip(utf8.decode());
      spaces = vocabulary.leadingSpaces;
      return rest;
    },
  };
}

function compile(decoder: ConfigReader): Pieces {
  const type = decoder.string('type');
  if (type === 'ByteLevel') return { toBytes: byteLevel(), leadingSpaces: 0 };
  if (type === 'Metaspace') {
    const mark = decoder.string('replacement', '▁');
    if (mark === '') throw decoder.wrong('replacement', 'a character');
    const leadingSpaces = decoder.string('prepend_scheme', 'always') === 'never' ? 0 : 1;
    return { toBytes: (token) => UTF8.encode(token.replaceAll(mark, ' ')), leadingSpaces };
  }
  if (type === 'Sequence') return sequence(decoder);
  throw decoder.wrong('type', 'a decoder ByteLevel, Metaspace, or Sequence of Replace, ByteFallback, Fuse, Strip');
}

/** Replace*, ByteFallback?, Fuse?, Strip? in this order: the decoder of Llama, Mistral and Gemma vocabularies. */
function sequence(decoder: ConfigReader): Pieces {
  const list = decoder.json.decoders;
  if (!Array.isArray(list)) throw decoder.wrong('decoders', 'an array');
  const steps = list.map((step, i) => configReader(Object(step), decoder.file, `decoder.decoders.${i}.`));
  const [only] = steps;
  if (steps.length === 1 && only !== undefined && only.string('type') !== 'Replace') return compile(only);
  const replacements: [from: string, to: string][] = [];
  let order = '';
  let leadingSpaces = 0;
  for (const step of steps) {
    const type = step.oneOf('type', ['Replace', 'ByteFallback', 'Fuse', 'Strip'] as const);
    order += type[0];
    if (type === 'Replace') replacements.push(replacement(step));
    if (type === 'Strip') leadingSpaces = stripped(step);
  }
  if (!/^R*B?(FS?)?$/.test(order)) throw decoder.wrong('decoders', 'the order Replace, ByteFallback, Fuse, Strip');
  const fallback = order.includes('B');
  const toBytes = (token: string): Uint8Array => {
    const text = replacements.reduce((result, [from, to]) => result.replaceAll(from, to), token);
    const byte = fallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text)?.[1] : undefined;
    return byte === undefined ? UTF8.encode(text) : Uint8Array.of(Number.parseInt(byte, 16));
  };
  return { toBytes, leadingSpaces };
}

function replacement(step: ConfigReader): [from: string, to: string] {
  const pattern = step.object('pattern');
  if (!pattern?.has('String')) throw step.wrong('pattern', 'a {"String": …} pattern');
  const [from, to] = [pattern.string('String'), step.string('content')];
  if (from === '') throw step.wrong('pattern', 'a {"String": …} pattern of at least one character');
  if (to.length > 64) throw step.wrong('content', 'at most 64 characters');
  return [from, to];
}

function stripped(step: ConfigReader): number {
  if (step.string('content') !== ' ') throw step.wrong('content', 'a space');
  if (step.number('stop', 0) !== 0) throw step.wrong('stop', '0');
  const start = step.number('start');
  if (!Number.isInteger(start) || start < 0) throw step.wrong('start', 'a number of spaces');
  return start;
}

/** GPT-2's table: printable Latin-1 bytes stand for themselves, the other 68 are the characters from U+0100 on. */
export function byteCharacters(): Map<string, number> {
  const byteOf = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    byteOf.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return byteOf;
}

function byteLevel(): (token: string) => Uint8Array {
  const byteOf = byteCharacters();
  return (token) => {
    const bytes = new Uint8Array(token.length);
    for (let i = 0; i < token.length; i++) {
      const byte = byteOf.get(token.charAt(i));
      if (byte === undefined) return UTF8.encode(token);
      bytes[i] = byte;
    }
    return bytes;
  };
}
