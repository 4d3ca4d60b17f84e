// Packed weights on disk: the same bits with and without them, and whatever is wrong with an entry, the model loads as if there were none.

import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { clearWeightCache, type LoadOptions, load, weightCache } from '../../src';
import {
  clearPacked,
  draftPacked,
  listPacked,
  packedFolder,
  removeAbandoned,
  weightCacheLimit,
} from '../../src/checkpoint/packed_store';
import { readSafetensorsHeader } from '../../src/checkpoint/safetensors';
import { PACKAGED_MODEL, PACKAGED_PICTURE } from '../../src/runtime/paths';
import { start } from '../../src/runtime/start';

const work = mkdtempSync(join(tmpdir(), 'sparsevila-weights-'));
const outer = process.env.SPARSEVILA_CACHE;
let cache = '';
let count = 0;

beforeAll(() => void start()); // finds the native modules in the real cache
beforeEach(() => {
  cache = join(work, `cache-${count++}`);
  process.env.SPARSEVILA_CACHE = cache;
  delete process.env.SPARSEVILA_WEIGHT_CACHE;
});
afterAll(() => {
  if (outer === undefined) delete process.env.SPARSEVILA_CACHE;
  else process.env.SPARSEVILA_CACHE = outer;
  rmSync(work, { recursive: true, force: true });
});

/** Loads a model and asks it about a picture: the vector and the log probabilities depend on every matrix. */
async function valuesOf(path: string, given: LoadOptions = {}): Promise<string> {
  using model = await load(path, given);
  const vector = await model.embed([{ kind: 'image', image: PACKAGED_PICTURE }, 'What is this?']);
  using session = model.session();
  const options = { images: [PACKAGED_PICTURE], maxTokens: 3, temperature: 0, logprobs: 2 };
  const pieces = [];
  for await (const piece of session.ask('Where is the yellow 2?', options).pieces()) pieces.push(piece);
  return JSON.stringify([Array.from(vector), pieces]);
}

/** What a load leaves in the cache: the names in its folder. */
const names = (): string[] => {
  try {
    return readdirSync(packedFolder());
  } catch {
    return [];
  }
};
const CACHED = { weightCache: true } as const;

/** A copy of the packaged model that a test may change. */
function copyOf(name: string): string {
  const folder = join(work, name);
  cpSync(PACKAGED_MODEL, folder, { recursive: true });
  return folder;
}

/** Changes one byte in the middle of a file. */
async function damage(file: string, at?: number): Promise<void> {
  const handle = await open(file, 'r+');
  const { size } = await handle.stat();
  const byte = Buffer.alloc(1);
  const place = at ?? Math.floor(size / 2);
  await handle.read(byte, 0, 1, place);
  byte[0] = (byte[0] as number) ^ 0x10;
  await handle.write(byte, 0, 1, place);
  await handle.close();
}

let expected = '';
beforeAll(async () => {
  expected = await valuesOf(PACKAGED_MODEL, { weightCache: false });
});

/** The entry, of which there is one. */
function entry(): string {
  const [only, ...others] = listPacked();
  if (only === undefined || others.length > 0) throw new Error(`expected one entry, found ${names().join(', ')}`);
  return only.folder;
}

it('the first load writes an entry, the second maps it, and the bits are those of a load without it', async () => {
  expect(await valuesOf(PACKAGED_MODEL, CACHED)).toBe(expected);
  const before = statSync(join(entry(), 'weights'), { bigint: true });
  expect(await valuesOf(PACKAGED_MODEL, CACHED)).toBe(expected);
  expect(statSync(join(entry(), 'weights'), { bigint: true }).ino).toBe(before.ino);
  expect(weightCache()).toEqual([expect.objectContaining({ model: PACKAGED_MODEL, bytes: Number(before.size) })]);
  // Without the checkpoint's matrices only the entry can give the right answer.
  const mapped = openSpy();
  await valuesOf(PACKAGED_MODEL, CACHED);
  expect(mapped()).toBe(true);
  expect(clearWeightCache()).toBeGreaterThan(Number(before.size) - 1);
  expect(names()).toEqual([]);
});

/** Notes whether ops have mapped matrices, and none was packed. */
function openSpy(): () => boolean {
  const { backend } = start();
  const spy = jest.spyOn(backend, 'executeSingleOutput');
  return () => {
    const ops = spy.mock.calls.map(([op]) => op);
    spy.mockRestore();
    return ops.includes('SvPacked') && !ops.some((op) => /^SvPack(Int[48])?$/.test(op));
  };
}

it('small models, switched off caches, and caches of 0 bytes are neither written nor read', async () => {
  await valuesOf(PACKAGED_MODEL);
  await valuesOf(PACKAGED_MODEL, { weightCache: false });
  for (const given of ['off', '0', '100k']) {
    process.env.SPARSEVILA_WEIGHT_CACHE = given;
    expect(await valuesOf(PACKAGED_MODEL, CACHED)).toBe(expected);
  }
  expect(listPacked()).toEqual([]);
  process.env.SPARSEVILA_WEIGHT_CACHE = '5 apples';
  await expect(load(PACKAGED_MODEL)).rejects.toThrow(/SPARSEVILA_WEIGHT_CACHE: expected 'on', 'off' or a size/);
});

test.each([
  [undefined, 20e9],
  ['on', 20e9],
  ['off', 0],
  ['20GB', 20e9],
  ['1.5t', 1.5e12],
  ['300', 300],
])('SPARSEVILA_WEIGHT_CACHE %s is %d bytes', (text, bytes) => {
  expect(weightCacheLimit({ SPARSEVILA_WEIGHT_CACHE: text })).toBe(bytes);
});

const DAMAGES: readonly (readonly [string, (folder: string) => unknown])[] = [
  ['a changed byte of a matrix', (folder) => damage(join(folder, 'weights'))],
  ['a cut file', (folder) => truncateSync(join(folder, 'weights'), 100_000)],
  ['no file', (folder) => rmSync(join(folder, 'weights'))],
  ['no index', (folder) => rmSync(join(folder, 'index.json'))],
  ['a cut index', (folder) => truncateSync(join(folder, 'index.json'), 300)],
  [
    'an index of nonsense',
    (folder) => writeFileSync(join(folder, 'index.json'), '{"format":1,"bytes":"x","records":[3]}'),
  ],
  ['an index of another format', (folder) => edit(folder, (text) => text.replace('"format":1', '"format":9'))],
  [
    'a matrix in the place of another',
    (folder) => edit(folder, (text) => text.replace(/"offset":196608\b/, '"offset":0')),
  ],
  ['an offset outside', (folder) => edit(folder, (text) => text.replace(/"offset":196608\b/, '"offset":1e15'))],
];
function edit(folder: string, change: (text: string) => string): void {
  const file = join(folder, 'index.json');
  const text = readFileSync(file, 'utf8');
  expect(change(text)).not.toBe(text);
  writeFileSync(file, change(text));
}

test.each(DAMAGES)('an entry with %s is not trusted, and is written again', async (_, change) => {
  await load(PACKAGED_MODEL, CACHED).then((model) => model.dispose());
  await change(entry());
  expect(await valuesOf(PACKAGED_MODEL, CACHED)).toBe(expected);
  await load(PACKAGED_MODEL, CACHED).then((model) => model.dispose());
  const mapped = openSpy();
  expect(await valuesOf(PACKAGED_MODEL, CACHED)).toBe(expected);
  expect(mapped()).toBe(true);
});

it('a checkpoint whose weights changed is not the old one, also with equal size and times', async () => {
  const folder = copyOf('changed');
  await load(folder, CACHED).then((model) => model.dispose());
  const file = join(folder, 'llm', 'model.safetensors');
  const { atime, mtime } = statSync(file);
  const tensor = readSafetensorsHeader(file).find(({ name }) => name.endsWith('layers.1.mlp.down_proj.weight'));
  if (tensor === undefined) throw new Error('no such tensor');
  await damage(file, tensor.offset + 3); // outside of the sample for the key
  utimesSync(file, atime, mtime);
  const changed = await valuesOf(folder, { weightCache: false });
  expect(changed).not.toBe(expected);
  expect(await valuesOf(folder, CACHED)).toBe(changed);
});

it('a copy of a checkpoint uses the entry of the original', async () => {
  await load(PACKAGED_MODEL, CACHED).then((model) => model.dispose());
  const mapped = openSpy();
  expect(await valuesOf(copyOf('copied'), CACHED)).toBe(expected);
  expect(mapped()).toBe(true);
  entry();
});

it('other weights, precisions and levels have entries of their own', async () => {
  for (const options of [CACHED, { ...CACHED, weights: 'f32' }, { ...CACHED, precision: 'fast' }] as const)
    await load(PACKAGED_MODEL, options).then((model) => model.dispose());
  expect(listPacked()).toHaveLength(3);
  const { native } = start();
  const level = native.isa();
  native.isa('portable');
  await load(PACKAGED_MODEL, CACHED).then((model) => model.dispose());
  native.isa(level);
  expect(listPacked()).toHaveLength(level === 'portable' ? 3 : 4);
});

it('the least recently used entries make room, and a load that fails leaves none', async () => {
  await load(PACKAGED_MODEL, CACHED).then((model) => model.dispose());
  const [first] = listPacked();
  if (first === undefined) throw new Error('no entry');
  process.env.SPARSEVILA_WEIGHT_CACHE = String(Math.ceil(first.bytes * 1.5));
  await load(PACKAGED_MODEL, { ...CACHED, precision: 'fast' }).then((model) => model.dispose());
  expect(entry()).not.toBe(first.folder);
  const broken = copyOf('broken');
  rmSync(join(broken, 'llm', 'tokenizer.json'), { force: true });
  const file = join(broken, 'mm_projector', 'model.safetensors');
  truncateSync(file, statSync(file).size - 1);
  await expect(load(broken, CACHED)).rejects.toThrow();
  expect(names()).toHaveLength(1);
});

it('a cache that cannot be written does without', async () => {
  writeFileSync(cache, 'a file in its place');
  expect(await valuesOf(PACKAGED_MODEL, CACHED)).toBe(expected);
  expect(clearPacked()).toBe(0);
});

it('a model that is in use survives a cleared cache; one whose file is cut fails with a code', async () => {
  await load(PACKAGED_MODEL, CACHED).then((model) => model.dispose());
  using cleared = await load(PACKAGED_MODEL, CACHED);
  const before = await cleared.embed('What is this?');
  clearWeightCache();
  expect(await cleared.embed('What is this?')).toEqual(before);
  await load(PACKAGED_MODEL, CACHED).then((model) => model.dispose());
  using cut = await load(PACKAGED_MODEL, CACHED);
  truncateSync(join(entry(), 'weights'), 0);
  await expect(cut.embed('What is this?')).rejects.toThrow(expect.objectContaining({ code: 'ERR_FILE_CHANGED' }));
  expect(await cleared.embed('What is this?')).toEqual(before);
});

it('what a killed process has left is removed, and what a living one writes is not', () => {
  const dead = draftPacked(join(packedFolder(), 'a'.repeat(32)));
  removeAbandoned(packedFolder(), 0);
  expect(names()).toHaveLength(1);
  dead?.discard();
  mkdirSync(join(packedFolder(), `${'b'.repeat(32)}.tmp-0123456789abcdef`));
  removeAbandoned();
  expect(names()).toHaveLength(1); // too young
  removeAbandoned(packedFolder(), 0);
  expect(names()).toEqual([]);
});
