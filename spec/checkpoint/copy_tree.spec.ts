// Only the files of a checkpoint are copied from a model folder, and never files outside.
import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { copyTree } from '../../src/checkpoint/copy_tree';
import { filesBelow } from '../../src/files';

let parent: string;
let model: string;
let to: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'sparsevila-copy-'));
  model = join(parent, 'model');
  to = join(parent, 'to');
  put('model/config.json', '{}');
  put('model/llm/tokenizer.json', '{"a":1}');
  put('outside/key', 'secret');
  put('outside/tokenizer.model', 'secret');
});
afterEach(() => rmSync(parent, { recursive: true }));

function put(path: string, content: string): void {
  mkdirSync(dirname(join(parent, path)), { recursive: true });
  writeFileSync(join(parent, path), content);
}
const link = (target: string, path: string): void => {
  mkdirSync(dirname(join(parent, path)), { recursive: true });
  symlinkSync(target, join(parent, path));
};
const copy = (from = model) =>
  copyTree(from, to, { skip: () => false, parts: ['llm', 'vision_tower'].map((name) => join(from, name)) });
const BASIS = ['config.json', 'llm/tokenizer.json'];

test('copies, skips and moves by path', async () => {
  put('model/llm/model.safetensors', 'weights');
  const move = (path: string): string => path.replace(/^llm\//, '');
  await copyTree(model, to, { skip: (path) => path === 'llm/model.safetensors', move, parts: [] });
  expect(filesBelow(to)).toEqual(['config.json', 'tokenizer.json']);
  expect(readFileSync(join(to, 'tokenizer.json'), 'utf8')).toBe('{"a":1}');
});

test.each<[string, () => void]>([
  ['a link to the folder itself', () => [link('.', 'model/a'), link('..', 'model/llm/b')]],
  ['a link to a folder outside', () => link('../outside', 'model/docs')],
  ['a link to a file outside that no checkpoint has', () => link('../outside/key', 'model/secret')],
  ['an accompanying file that is a link out', () => link('../outside/key', 'model/README.md')],
  ['an accompanying file that is a link to nothing', () => link('nowhere', 'model/README.md')],
  ['a FIFO', () => execFileSync('mkfifo', [join(model, 'pipe')])],
  ['a FIFO of an accompanying name', () => execFileSync('mkfifo', [join(model, 'notes.txt')])],
  ['a device', () => link('/dev/zero', 'model/LICENSE')],
  ['what another tool keeps there', () => [put('model/.git/config.json', '{}'), put('model/pytorch_model.bin', 'x')]],
  ['a file that a killed run left', () => put('model/llm/model.safetensors.tmp-0123456789abcdef', 'half')],
])('%s is not copied', async (_, make) => {
  make();
  await copy();
  expect(filesBelow(to)).toEqual(BASIS);
});

test.each<[string, () => void, string, string]>([
  [
    'a link out',
    () => link('../../outside/tokenizer.model', 'model/llm/tokenizer.model'),
    'ERR_PATH_OUTSIDE',
    'cp -rL',
  ],
  ['a link to nothing', () => link('nowhere', 'model/llm/vocab.json'), 'ERR_FILE_UNREADABLE', 'vocab.json'],
  ['a FIFO', () => execFileSync('mkfifo', [join(model, 'llm/merges.txt')]), 'ERR_FILE_UNREADABLE', 'FIFO'],
  ['a link to a folder of parts', () => link('../outside', 'model/vision_tower'), 'ERR_PATH_OUTSIDE', 'vision_tower'],
])('a required file that is %s is an error', async (_, make, code, message) => {
  make();
  await expect(copy()).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
});

test('links within the checkpoint, and those of the Hugging Face cache, are copied as files', async () => {
  put('cache/blobs/abc', '{"b":2}');
  link('../../blobs/abc', 'cache/snapshots/x/config.json');
  link('config.json', 'cache/snapshots/x/generation_config.json');
  link('cache/snapshots/x', 'current');
  await copy(join(parent, 'current'));
  expect(filesBelow(to)).toEqual(['config.json', 'generation_config.json']);
  for (const name of filesBelow(to)) {
    expect(lstatSync(join(to, name)).isFile()).toBe(true);
    expect(readFileSync(join(to, name), 'utf8')).toBe('{"b":2}');
  }
});

test('names with line breaks, escapes and 255 bytes', async () => {
  const names = ['a\nb.json', 'a\x1b[31mb.json', `${'n'.repeat(250)}.json`];
  for (const name of names) writeFileSync(join(model, name), '{}');
  await copy();
  expect(filesBelow(to).sort()).toEqual([...names, ...BASIS].sort());
});

test('a copy that exists is an error, not overwritten', async () => {
  await copy();
  await expect(copy()).rejects.toMatchObject({ code: 'ERR_OUTPUT_UNWRITABLE' });
});
