// Tokenizers that are damaged or hostile: refused by name before the library sees them, and in bounded time.
import { loadTokenizer } from '../../src/text/tokenizer';
import { byteLevel, sentencePiece, withFolder } from './vocabularies';

type Json = Record<string, unknown>;
const GPT2 = { type: 'ByteLevel', add_prefix_space: false, use_regex: true };
const whole = byteLevel(GPT2);
const model = whole.model as Json;
const vocab = model.vocab as Json;
const token = (whole.added_tokens as Json[])[0] as Json;
const load = (json: Json) => withFolder({ 'tokenizer.json': json }, loadTokenizer);
const split = (Regex: string) => ({
  type: 'Sequence',
  pretokenizers: [
    { type: 'Split', pattern: { Regex }, behavior: 'Isolated' },
    { ...GPT2, use_regex: false },
  ],
});
const replace = (from: string, content: string) => ({ type: 'Replace', pattern: { String: from }, content });
const normalize = (...normalizers: unknown[]) => ({ normalizer: { type: 'Sequence', normalizers } });

const refused = (change: Json, code: string, message: RegExp): void => {
  expect(() => load({ ...whole, ...change })).toThrow(
    expect.objectContaining({ code, message: expect.stringMatching(message) }),
  );
};
const invalid = (change: Json, message: RegExp): void => refused(change, 'ERR_CONFIG_INVALID', message);

describe('ids', () => {
  it.each([[1e9], [-1], [1.5], ['7'], [null], [2 ** 33]])('%j is refused', (id) => {
    invalid({ model: { ...model, vocab: { ...vocab, zzz: id } } }, /an id from 0 to 4194303 for "model\.vocab\.zzz"/);
    invalid({ added_tokens: [{ ...token, id }] }, /an integer from 0 to 4194303 for "added_tokens\.0\.id"/);
  });

  it('belong to one token each', () => {
    invalid({ model: { ...model, vocab: { ...vocab, zzz: 65 } } }, /an id other than that of "A"/);
    invalid({ added_tokens: [{ ...token, id: 65 }] }, /an id other than that of "A"/);
    invalid({ added_tokens: [{ ...token, content: 'A' }] }, /expected 65, which "A" has elsewhere/);
    expect(load({ ...whole, added_tokens: [token, token, { ...token, id: 65, content: 'A' }] }).vocabSize).toBe(301);
  });
});

describe('the model', () => {
  it.each<[Json, RegExp]>([
    [{ merges: null }, /a list of pairs for "model\.merges"/],
    [{ merges: ['a'] }, /two tokens.*"model\.merges\.0"/],
    [{ merges: ['t h', 'th zz'] }, /two tokens.*"model\.merges\.1"/],
    [{ merges: [['t', 'q']] }, /make a third/],
    [{ vocab: {} }, /at least one token/],
    [{ type: 'Nope' }, /BPE, Unigram, WordPiece/],
    [{ dropout: 0.1 }, /dropout is for training/],
    [{ continuing_subword_prefix: '##' }, /continuing_subword_prefix/],
    [{ end_of_word_suffix: '</w>' }, /end_of_word_suffix/],
    [{ byte_fallback: 'yes' }, /true or false/],
    [{ type: 'Unigram', vocab: [['a', 0]], byte_fallback: true }, /not implemented for Unigram/],
    [
      {
        type: 'Unigram',
        vocab: [
          ['a', 0],
          ['a', 1],
        ],
      },
      /no token twice/,
    ],
  ])('%j', (change, message) => invalid({ model: { ...model, ...change } }, message));
});

describe('components', () => {
  it.each<[Json, RegExp]>([
    [{ normalizer: { type: 'Nmt' } }, /a normalizer of NFC.*received "Nmt"/],
    [{ pre_tokenizer: { type: 'UnicodeScripts' } }, /a pre-tokenizer of/],
    [{ post_processor: { type: 'Odd' } }, /a post-processor of/],
    [{ pre_tokenizer: { type: 'FixedLength', length: 0 } }, /"pre_tokenizer\.length"|at least 1/],
    [{ pre_tokenizer: { ...(split('a').pretokenizers[0] as Json), behavior: 'Contiguous' } }, /Isolated or Removed/],
    [{ pre_tokenizer: split('') }, /1 to 4096 characters/],
    [{ pre_tokenizer: split('(') }, /expected a tokenizer of the tokenizers library/],
    [{ post_processor: { type: 'TemplateProcessing', single: [{}] } }, /a list of \{"SpecialToken"/],
    [
      {
        post_processor: {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: '<x>' } }, { Sequence: { id: 'A' } }],
        },
      },
      /tokens of the vocabulary in the post-processor, received "<x>"/,
    ],
  ])('%j', (change, message) => invalid(change, message));

  it('are not deeper than the stack', () => {
    let nested: unknown = { type: 'NFC' };
    for (let i = 0; i < 100; i++) nested = { type: 'Sequence', normalizers: [nested] };
    invalid({ normalizer: nested }, /at most 64 steps, 8 deep/);
  });

  it('do not multiply a text', () => {
    invalid(normalize(...Array.from({ length: 30 }, () => replace('a', 'aa'))), /lengthen a text/);
    invalid(normalize(replace('a', 'a'.repeat(1000))), /at most 64 times/);
    invalid(normalize({ type: 'Prepend', prepend: 'x'.repeat(1e6) }), /at most 16 characters/);
    expect(load({ ...whole, ...normalize({ type: 'NFKC' }, { type: 'Lowercase' }) }).encode('Ａ')).toEqual([97]);
  });
});

describe('patterns that backtrack', () => {
  it.each([['(\\w+\\s?)+$'], ['(a|a)*$'], ['(.*)*x{3}'], ['^(([a-z])+.)+[A-Z]([a-z])+$']])('%s is ended', (pattern) => {
    refused(
      { pre_tokenizer: split(pattern) },
      'ERR_TOKENIZER_LIMIT',
      /tokenizer\.json: encoding \d+ characters takes too long/,
    );
  });

  it('of a normalizer are ended, too', () => {
    const slow = { type: 'Replace', pattern: { Regex: '(\\w+\\s?)+$' }, content: '' };
    refused(normalize(slow), 'ERR_TOKENIZER_LIMIT', /takes too long/);
  });
});

describe('text that does not survive', () => {
  it('is an error where every byte has a token', () => {
    refused({ pre_tokenizer: null }, 'ERR_TOKENIZER', /"The quick brown fox .* comes back as/);
    refused({ decoder: { type: 'Metaspace' } }, 'ERR_TOKENIZER', /comes back as/);
    const { decoder } = sentencePiece();
    refused({ decoder }, 'ERR_TOKENIZER', /comes back as/);
  });

  it('is an error where no word is known', () => {
    const unknown = { ...model, vocab: { '<unk>': 0, '§': 1 }, merges: [], unk_token: '<unk>' };
    refused({ model: unknown, added_tokens: [] }, 'ERR_TOKENIZER', /no known tokens/);
  });

  it('is the business of a normalizer that changes it', () => {
    for (const type of ['Lowercase', 'NFKC', 'StripAccents'])
      expect(load({ ...whole, normalizer: { type } }).vocabSize).toBe(302);
    const spaced = { ...GPT2, add_prefix_space: true };
    expect(load(byteLevel(spaced)).encode('the')).toEqual([258]);
  });

  it('of a question is an error where the vocabulary cannot write it', () => {
    const { '¿': _, ...rest } = vocab;
    const { '¿!': __, ...fewer } = rest;
    const merges = (model.merges as string[]).filter((merge) => !merge.includes('¿'));
    const tokenizer = load({ ...whole, model: { ...model, vocab: fewer, merges, unk_token: '<none>' } });
    expect(() => tokenizer.encode('\ufeff')).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER' }));
  });
});

describe('added tokens', () => {
  const added = (change: Json) =>
    load({
      ...whole,
      added_tokens: [
        { ...token, ...change },
        { ...token, id: 302, content: '<|im' },
      ],
    });
  const all = (text: string) => [{ begin: 0, end: text.length }];

  it('are found longest first, and not in plain ranges', () => {
    const tokenizer = added({});
    expect(tokenizer.encode('a<|im_end|>b<|im')).toEqual([97, 300, 98, 302]);
    const text = 'a<|im_end|>b';
    expect(tokenizer.encode(text, { plain: all(text) })).toEqual([...Buffer.from('a<|im_end|>b')]);
    expect(tokenizer.encode(text + text, { plain: [{ begin: 3, end: 4 }] })).toEqual([
      ...Buffer.from(text),
      97,
      300,
      98,
    ]);
    expect(tokenizer.encode('<|im_end|>', { plain: all('<|im_end|>') })).toEqual([...Buffer.from('<|im_end|>')]);
  });

  it('that are not special are text of a user, too', () => {
    const tokenizer = load(whole);
    expect(tokenizer.encode('<think>', { plain: all('<think>') })).toEqual([301]);
  });

  it('take white space with them, and stand alone, where they say so', () => {
    expect(added({ lstrip: true, rstrip: true }).encode('a  <|im_end|> b')).toEqual([97, 300, 98]);
    const single = load({ ...whole, added_tokens: [{ ...token, content: 'cat', single_word: true }] });
    expect(single.encode('cat')).toEqual([300]);
    expect(single.encode('cats')).toEqual([...Buffer.from('cats')]);
  });

  it('cannot be made by merges of plain text', () => {
    const json = { ...whole, added_tokens: [{ ...token, id: 257, content: 'the' }] };
    expect(load(json).encode('the', { plain: all('the') })).toEqual([256, 101]);
    expect(load(json).encode('the')).toEqual([257]);
  });

  it('may be many', () => {
    const many = Array.from({ length: 100_000 }, (_, i) => ({ ...token, id: 1000 + i, content: `<x${i}>` }));
    expect(load({ ...whole, added_tokens: many }).encode('a<x99999>b<x1')).toEqual([
      97,
      100_999,
      98,
      ...Buffer.from('<x1'),
    ]);
  });

  it('that a model adds get the next id', () => {
    const tokenizer = withFolder({ 'tokenizer.json': whole }, (folder) =>
      loadTokenizer(folder, { added: ['<image>', '<think>'] }),
    );
    expect([tokenizer.idOf('<image>'), tokenizer.idOf('<think>'), tokenizer.encode('<image>')]).toEqual([
      302,
      301,
      [302],
    ]);
  });
});
