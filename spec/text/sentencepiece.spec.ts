// tokenizer.model against what transformers makes of it: merges and ids (spec/fixtures/sentencepiece, made by scripts/fixtures), and files
// that are damaged or of another kind.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sentencePieceTokenizer } from '../../src/text/sentencepiece';
import { loadTokenizer } from '../../src/text/tokenizer';
import { withFolder } from './vocabularies';

const FOLDER = join(__dirname, '../../../spec/fixtures/sentencepiece');
const MODEL = readFileSync(join(FOLDER, 'tokenizer.model'));
const expected = JSON.parse(readFileSync(join(FOLDER, 'expected.json'), 'utf8')) as {
  prefix: number[];
  merges: [string, string][];
  cases: { text: string; ids: number[] }[];
};

describe('a model of Llama kind', () => {
  const tokenizer = loadTokenizer(FOLDER);

  it('has the merges that transformers derives', () => {
    const { model } = sentencePieceTokenizer(join(FOLDER, 'tokenizer.model'), {}) as { model: { merges: unknown } };
    expect(model.merges).toEqual(expected.merges);
  });

  it('gives the ids of transformers', () => {
    expect(expected.cases.length).toBeGreaterThan(300);
    for (const { text, ids } of expected.cases) expect([text, tokenizer.encode(text)]).toEqual([text, ids]);
    expect(tokenizer.prefixIds).toEqual(expected.prefix);
  });

  it('follows tokenizer_config.json', () => {
    const config = {
      add_bos_token: false,
      add_prefix_space: false,
      added_tokens_decoder: { 2: { content: '</s>', special: true }, 600: { content: '<pad>', special: true } },
    };
    withFolder({ 'tokenizer.model': MODEL, 'tokenizer_config.json': config }, (folder) => {
      const other = loadTokenizer(folder);
      expect([other.prefixIds, other.idOf('<pad>'), other.encode('<pad>')]).toEqual([[], 600, [600]]);
      expect(other.encode('on')).not.toEqual(tokenizer.encode('on'));
      expect(other.decode(other.encode(' on'), { skipSpecial: false })).toBe(' on');
    });
  });
});

describe('a file that is not such a model', () => {
  const loading =
    (model: Uint8Array, config = {}) =>
    () =>
      withFolder({ 'tokenizer.model': model, 'tokenizer_config.json': config }, loadTokenizer);

  it.each([
    ['empty', Buffer.alloc(0), /has no pieces/],
    ['cut', MODEL.subarray(0, 1000), /ends within/],
    ['text', Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0'), /SentencePiece model, but/],
    ['a length beyond the end', Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f]), /ends within a field/],
    ['an endless number', Buffer.alloc(64, 0xff), /more than ten bytes/],
  ])('%s', (_, bytes, message) => {
    expect(loading(bytes)).toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG_INVALID', message: expect.stringMatching(message) }),
    );
  });

  it('of another class: the error has the command that makes a tokenizer.json', () => {
    // The command was run as it stands, on models of the classes GemmaTokenizer and CodeLlamaTokenizer, and what it wrote loads.
    expect(loading(MODEL, { tokenizer_class: 'GemmaTokenizer' })).toThrow(
      expect.objectContaining({
        code: 'ERR_CONFIG_UNSUPPORTED',
        message: expect.stringMatching(
          /GemmaTokenizer\. .*python3 -c '.*from_pretrained\(d, .*\.save_pretrained\(d\)'$/,
        ),
      }),
    );
  });
});
