// Tokenizers: the packaged model's, and both kinds of vocabulary with characters that span tokens.
import { join } from 'node:path';
import { uniform } from '../../src/text/random';
import { loadTokenizer, type Tokenizer, textStream } from '../../src/text/tokenizer';
import { byteLevel, sentencePiece, withFolder } from './vocabularies';

const TINY = join(__dirname, '../../../assets/tiny-nvila/llm');
const GPT2 = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
const keep = { skipSpecial: false };
const skip = { skipSpecial: true };

const TEXTS = [
  'plain words, numbers 12345 and   spaces\n\n\ttabs ',
  '👍🏽 👩‍👩‍👧‍👦 🇩🇪 flags and joined people',
  '你好，世界。 日本語のテキスト 한국어',
  'combining e\u0301 n\u0303 and Zalgo z\u0335\u0321',
  'العربية עברית हिन्दी ไทย',
  '\ufeffmark at the start, in\ufeffside \ufeff alone',
  'math 𝒳 ∑ and private \ue000 and U+FFFD itself: \ufffd.',
  '\u0000\u0007 control \u0085 next line \u00a0 no-break',
];

const load = (json: Record<string, unknown>): Tokenizer => withFolder({ 'tokenizer.json': json }, loadTokenizer);
const tiny = loadTokenizer(TINY);
const bytes = load(byteLevel(GPT2));
const pieces = load(sentencePiece());

describe('the packaged model', () => {
  it('encodes a turn with its markup', () => {
    const ids = tiny.encode('<|im_start|>user\nWhat color is the A?<|im_end|>\n<|im_start|>assistant\n');
    expect(ids[0]).toBe(425);
    expect(ids.filter((id) => tiny.isSpecial(id))).toEqual([425, 426, 425]);
    expect(tiny.decode(ids, keep)).toBe('<|im_start|>user\nWhat color is the A?<|im_end|>\n<|im_start|>assistant\n');
    expect(tiny.decode(ids, skip)).toBe('user\nWhat color is the A?\nassistant\n');
  });

  it('knows its tokens, adds none, and says how many there are', () => {
    expect([tiny.idOf('<image>'), tiny.idOf('<|im_end|>'), tiny.idOf('no such token')]).toEqual([427, 426, undefined]);
    expect(tiny.encode('\n')).toHaveLength(1);
    expect([tiny.vocabSize, tiny.prefixIds]).toEqual([428, []]);
  });

  it('refuses what is no text and no list', () => {
    const invalid = expect.objectContaining({ code: 'ERR_OPTION_INVALID' });
    for (const text of [undefined, null, 7, ['a']])
      expect(() => tiny.encode(text as unknown as string)).toThrow(invalid);
    for (const ids of [undefined, 7, 'abc'])
      expect(() => tiny.decode(ids as unknown as number[], keep)).toThrow(invalid);
  });

  it('decodes nothing, unknown ids and padded ids to nothing', () => {
    expect(tiny.decode([], keep)).toBe('');
    expect(tiny.decode([428, 447, 99999, -1], keep)).toBe('');
    expect(tiny.encode('')).toEqual([]);
  });

  it.each(TEXTS)('brings back %j', (text) => {
    expect(tiny.decode(tiny.encode(text), keep)).toBe(text.normalize('NFC'));
  });
});

describe('byte-level vocabulary with the built-in pattern', () => {
  it.each(TEXTS)('brings back %j', (text) => {
    expect(bytes.decode(Int32Array.from(bytes.encode(text)), keep)).toBe(text.normalize('NFC'));
  });

  it('does not take U+FEFF for white space, and takes U+0085 for it, as the Rust library does', () => {
    // The merges tell: "\ufeff!" is one piece of punctuation, whose last two bytes merge; "\u0085!" is two pieces.
    expect(bytes.encode('\ufeff!')).toEqual([0xef, 0xbb, 259]);
    expect(bytes.encode('\u0085!')).toEqual([0xc2, 0x85, 0x21]);
  });

  it('keeps markup that is not special when special tokens are skipped', () => {
    expect(bytes.decode([301, 116, 104, 300], skip)).toBe('<think>th');
  });
});

describe('SentencePiece-like vocabulary', () => {
  it('marks the first word and falls back to bytes', () => {
    expect(pieces.prefixIds).toEqual([1]);
    const ids = pieces.encode('a b 😀');
    expect(ids).toHaveLength(7);
    expect(pieces.decode(ids, keep)).toBe('a b 😀');
  });

  it('takes half a surrogate pair for U+FFFD', () => {
    expect(pieces.encode('a\ud83db')).toEqual(pieces.encode('a\ufffdb'));
    expect(pieces.encode('\ufffd')).toContain(pieces.idOf('\ufffd'));
  });

  it('strips one leading space of the whole text, not of every token', () => {
    const [a, b, twice] = [pieces.idOf('▁a') ?? -1, pieces.idOf('▁b') ?? -1, pieces.idOf('▁▁') ?? -1];
    expect(pieces.decode([a, b], keep)).toBe('a b');
    expect(pieces.decode([1, a], skip)).toBe('a');
    expect(pieces.decode([1, a], keep)).toBe('<s> a');
    expect(pieces.decode([twice, b], keep)).toBe('  b');
  });

  it('keeps U+FEFF that came by byte fallback', () => {
    expect(pieces.decode(pieces.encode('a\ufeffb'), keep)).toBe('a\ufeffb');
  });
});

describe('textStream', () => {
  const cases: [name: string, tokenizer: Tokenizer][] = [
    ['packaged', tiny],
    ['byte-level', bytes],
    ['SentencePiece', pieces],
  ];

  it.each(cases)('gives the same text as a whole decode, for random ids (%s)', (_, tokenizer) => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const random = uniform(seed);
      for (const options of [keep, skip]) {
        const stream = textStream(tokenizer, options);
        const ids = Array.from({ length: 2000 }, () => Math.floor(random() * (tokenizer.vocabSize + 8)));
        const text = ids.map((id) => stream.push(id)).join('') + stream.flush();
        expect(text).toBe(tokenizer.decode(ids, options));
      }
    }
  });

  it.each(cases)('emits whole characters only (%s)', (_, tokenizer) => {
    for (const text of TEXTS) {
      const stream = textStream(tokenizer);
      const parts = tokenizer.encode(text).map((id) => stream.push(id));
      expect(stream.flush()).toBe('');
      expect(parts.join('')).toBe(tokenizer.decode(tokenizer.encode(text), skip));
      for (const part of parts) expect(part).not.toMatch(/\p{Surrogate}/u);
      if (!text.includes('\ufffd')) expect(parts.join('')).not.toContain('\ufffd');
    }
  });

  it('holds an incomplete character back, and ends it as U+FFFD', () => {
    const stream = textStream(bytes);
    expect([0xf0, 0x9f, 0x98, 0x80].map((id) => stream.push(id))).toEqual(['', '', '', '😀']);
    expect([stream.push(0xf0), stream.push(0x9f), stream.flush()]).toEqual(['', '', '\ufffd']);
    expect([stream.push(0xe4), stream.push(0x61)]).toEqual(['', '\ufffda']);
  });

  it('skips special tokens unless told otherwise, and starts afresh after a flush', () => {
    const stream = textStream(tiny);
    expect(stream.push(426)).toBe('');
    expect(textStream(tiny, keep).push(426)).toBe('<|im_end|>');
    const spaced = textStream(pieces);
    const a = pieces.idOf('▁a') ?? -1;
    expect([spaced.push(a), spaced.push(a), spaced.flush(), spaced.push(a)]).toEqual(['a', ' a', '', 'a']);
  });
});

describe('loadTokenizer', () => {
  it('names what is missing or wrong', () => {
    const fails = (files: Record<string, unknown>, code: string, message: RegExp): void => {
      expect(() => withFolder(files, loadTokenizer)).toThrow(
        expect.objectContaining({ code, message: expect.stringMatching(message) }),
      );
    };
    const whole = byteLevel(GPT2);
    fails({}, 'ERR_CONFIG_MISSING', /tokenizer\.json: cannot be read/);
    fails({ 'tokenizer.json': '{' }, 'ERR_CONFIG_INVALID', /tokenizer\.json: expected JSON/);
    fails({ 'tokenizer.json': { model: {} } }, 'ERR_CONFIG_INVALID', /tokenizer\.json: expected a tokenizer/);
    fails({ 'tokenizer.json': { ...whole, decoder: null } }, 'ERR_CONFIG_INVALID', /a decoder for "decoder"/);
    fails(
      { 'tokenizer.json': { ...whole, decoder: { type: 'CTC' } } },
      'ERR_CONFIG_INVALID',
      /ByteLevel, Metaspace.*"decoder.type"/,
    );
    fails(
      { 'tokenizer.json': whole, 'tokenizer_config.json': '[]' },
      'ERR_CONFIG_INVALID',
      /tokenizer_config\.json: expected a JSON object/,
    );
    const strip = { type: 'Sequence', decoders: [{ type: 'Strip', content: ' ', start: 1 }, { type: 'Fuse' }] };
    fails(
      { 'tokenizer.json': { ...whole, decoder: strip } },
      'ERR_CONFIG_INVALID',
      /the order Replace, ByteFallback, Fuse, Strip/,
    );
  });

  it('reads additional special tokens and a Metaspace decoder', () => {
    const config = { additional_special_tokens: ['<think>', { content: '<|im_end|>' }, '<absent>'] };
    const tokenizer = withFolder({ 'tokenizer.json': byteLevel(GPT2), 'tokenizer_config.json': config }, loadTokenizer);
    expect([tokenizer.isSpecial(301), tokenizer.isSpecial(300), tokenizer.isSpecial(1)]).toEqual([true, true, false]);
    const metaspace = load({ ...sentencePiece(), decoder: { type: 'Metaspace', replacement: '▁' } });
    expect(metaspace.decode(metaspace.encode('a b'), keep)).toBe('a b');
  });
});
