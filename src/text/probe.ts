// Tests once, when a tokenizer is loaded, whether text survives encoding and decoding: a vocabulary, decoder or pattern that belongs to
// another tokenizer would otherwise change every question silently.
import { SparseVilaError } from '../errors';
import { configReader, type Json } from '../json';
import { byteCharacters } from './detokenize';
import type { Tokenizer } from './tokenizer';
import type { CheckedTokenizer } from './tokenizer_check';

const WORDS = 'The quick brown fox jumps over the lazy dog; what is at b4?';

const TEXTS = [
  WORDS,
  'Hello, World! 0123456789 (1,234.56) #7 @x "quoted" \'s',
  'line one\nline two\n\n\ttab   three spaces',
  'na\u00efve caf\u00e9 \u2014 stra\u00dfe',
  '\u4f60\u597d\uff0c\u4e16\u754c \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4',
  '\u{1f600} \u{1f469}\u200d\u{1f469}\u200d\u{1f467} \u{1d4b3}',
];

/** Texts on which a pattern with unbounded backtracking does backtrack: short ones for exponential and long ones for cubic growth. */
const BAIT = [32, 2000].flatMap((length) => [
  `${'a'.repeat(length)}!`,
  `${' '.repeat(length)}!`,
  `${'1'.repeat(length)}a`,
  `${'\n'.repeat(length)}a`,
  `${'ab '.repeat(length / 2)}!`,
  `${'!'.repeat(length)}a`,
]);

/**
 * Encodes and decodes texts. A vocabulary with a token for each byte and without a normalizer that changes texts must reproduce each of them;
 * any other must at least know words.
 * @throws SparseVilaError `ERR_TOKENIZER`, `ERR_TOKENIZER_LIMIT`
 */
export function checkRoundTrips(tokenizer: Tokenizer, checked: CheckedTokenizer): void {
  for (const text of BAIT) tokenizer.encode(text);
  const decode = (ids: readonly number[]): string => tokenizer.decode(ids, { skipSpecial: false });
  if (isLossless(checked)) {
    for (const text of TEXTS.map((text) => text.normalize('NFC'))) {
      const back = decode(tokenizer.encode(text));
      // A tokenizer may put a space before the first word.
      if (back === text || back === ` ${text}`) continue;
      throw mismatch(checked.file, `${JSON.stringify(text)} comes back as ${JSON.stringify(back.slice(0, 80))}`);
    }
    return;
  }
  const { unk_token: unknown, unk_id: index } = checked.json.model as Json;
  const unknownId = typeof unknown === 'string' ? tokenizer.idOf(unknown) : index;
  const ids = tokenizer.encode(WORDS);
  if (ids.length > 0 && !ids.every((id) => id === unknownId)) return;
  throw mismatch(checked.file, `${JSON.stringify(WORDS)} has no known tokens`);
}

function mismatch(file: string, what: string): SparseVilaError {
  const message = `${file}: expected text to survive encoding and decoding, but ${what}.`;
  return new SparseVilaError(
    'ERR_TOKENIZER',
    `${message} The file is damaged, or its parts belong to different tokenizers.`,
  );
}

function isLossless({ json, file, vocabulary }: CheckedTokenizer): boolean {
  if (!keepsText(json.normalizer)) return false;
  const model = json.model as Json;
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const decoder = configReader(json, file).object('decoder')?.json;
  if (model.byte_fallback === true) {
    const decodes = JSON.stringify(decoder?.decoders ?? null).includes('"ByteFallback"');
    const hex = (byte: number): string => byte.toString(16).toUpperCase().padStart(2, '0');
    return decodes && bytes.every((byte) => vocabulary.has(`<0x${hex(byte)}>`));
  }
  const usesBytes = JSON.stringify([json.pre_tokenizer, decoder]).includes('"ByteLevel"');
  return usesBytes && [...byteCharacters().keys()].every((character) => vocabulary.has(character));
}

/** Whether a normalizer only composes characters and marks spaces. */
function keepsText(normalizer: unknown): boolean {
  if (typeof normalizer !== 'object' || normalizer === null) return true;
  const { type, normalizers, pattern } = normalizer as Json;
  if (type === 'Sequence') return Array.isArray(normalizers) && normalizers.every(keepsText);
  if (type === 'Replace') return typeof pattern === 'object' && Object(pattern).String === ' ';
  return type === 'NFC' || type === 'Prepend';
}
