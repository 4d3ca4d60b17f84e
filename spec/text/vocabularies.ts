// Small vocabularies of the kinds of our families, written to temporary folders: byte-level with all 256 bytes, and SentencePiece-like.
// Knows nothing of jest. Merges are few, so that characters span tokens.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Writes files (objects as JSON) to a new folder, calls `work` with it, and removes it. */
export function withFolder<T>(files: Readonly<Record<string, unknown>>, work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-'));
  try {
    for (const [name, content] of Object.entries(files)) {
      const raw = typeof content === 'string' || content instanceof Uint8Array;
      writeFileSync(join(folder, name), raw ? content : JSON.stringify(content));
    }
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const special = (id: number, content: string) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

/** The packaged model's kind: NFC, the given pattern, all bytes, and merges for " the" and for U+FEFF or U+0085 before "!". */
export function byteLevel(preTokenizer: unknown): Record<string, unknown> {
  const vocab: Record<string, number> = {};
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    vocab[String.fromCharCode(printable ? byte : next++)] = byte;
  }
  Object.assign(vocab, { th: 256, the: 257, Ġthe: 258, '¿!': 259, 'ħ!': 260 });
  return {
    version: '1.0',
    added_tokens: [special(300, '<|im_end|>'), { ...special(301, '<think>'), special: false }],
    normalizer: { type: 'NFC' },
    pre_tokenizer: preTokenizer,
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      vocab,
      merges: ['t h', 'th e', 'Ġ the', '¿ !', 'ħ !'],
      unk_token: null,
      byte_fallback: false,
    },
  };
}

/** Llama's kind: Metaspace marks, byte fallback, one leading space stripped when decoding, `<s>` before a prompt. */
export function sentencePiece(): Record<string, unknown> {
  const vocab: Record<string, number> = { '<unk>': 0, '<s>': 1, '</s>': 2 };
  for (let byte = 0; byte < 256; byte++) vocab[`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`] = 3 + byte;
  for (const token of ['▁', 'a', 'b', 'c', '▁a', '▁b', '▁▁', 'é', ':', '\ufffd'])
    vocab[token] = Object.keys(vocab).length;
  return {
    version: '1.0',
    added_tokens: [special(0, '<unk>'), special(1, '<s>'), special(2, '</s>')],
    normalizer: null,
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 0 } }],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      vocab,
      merges: ['▁ a', '▁ b', '▁ ▁'],
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
    },
  };
}
