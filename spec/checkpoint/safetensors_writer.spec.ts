// The writer against the reader, and the files after a failure.
import { execFileSync } from 'node:child_process';
import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeCheckpoint } from '../../src/checkpoint/export';
import { openCheckpoint, readSafetensorsHeader } from '../../src/checkpoint/safetensors';
import { type TensorSource, writeSafetensors } from '../../src/checkpoint/safetensors_writer';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-writer-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const tensor = (
  name: string,
  dtype: 'U8' | 'F16' | 'I64',
  count: number,
  bytes?: TensorSource['bytes'],
): TensorSource => {
  const byteLength = count * { U8: 1, F16: 2, I64: 8 }[dtype];
  return {
    name,
    dtype,
    shape: [count],
    byteLength,
    bytes: bytes ?? (() => new Uint8Array(byteLength).fill(name.length)),
  };
};

it('writes files that the reader reads, each tensor aligned to its element', async () => {
  const file = join(folder, 'a.safetensors');
  const sizes: number[] = [];
  await writeSafetensors(
    file,
    [tensor('a', 'U8', 3), tensor('bcd', 'F16', 5), tensor('ef', 'I64', 2), tensor('none', 'F16', 0)],
    {
      onBytes: (bytes) => sizes.push(bytes),
    },
  );
  const entries = new Map(readSafetensorsHeader(file).map((entry) => [entry.name, entry]));
  expect([...entries.keys()].sort()).toEqual(['a', 'bcd', 'ef', 'none']);
  const bytes = readFileSync(file);
  for (const [name, unit] of [
    ['a', 1],
    ['bcd', 2],
    ['ef', 8],
  ] as const) {
    const entry = entries.get(name);
    expect(entry && entry.offset % unit).toBe(0);
    expect(
      bytes.subarray(entry?.offset, (entry?.offset ?? 0) + (entry?.bytes ?? 0)).every((b) => b === name.length),
    ).toBe(true);
  }
  expect(Number(bytes.readBigUInt64LE()) % 8).toBe(0);
  expect(sizes.reduce((a, b) => a + b)).toBe(3 + 10 + 16);
});

it.each([
  [
    'a source that fails',
    () => {
      throw new Error('lost');
    },
    'lost',
  ],
  ['too few bytes', () => new Uint8Array(3), 'expected 8 bytes, received 3'],
])('%s leaves no file', async (_, bytes, message) => {
  const writing = writeSafetensors(join(folder, 'a.safetensors'), [tensor('a', 'U8', 5), tensor('b', 'U8', 8, bytes)]);
  await expect(writing).rejects.toThrow(message);
  expect(readdirSync(folder)).toEqual([]);
});

it('an abort leaves no new file, and keeps the old one', async () => {
  const file = join(folder, 'a.safetensors');
  await writeSafetensors(file, [tensor('old', 'U8', 1)]);
  const controller = new AbortController();
  const late = tensor('b', 'U8', 1, () => {
    controller.abort();
    return new Uint8Array(1);
  });
  await expect(writeSafetensors(file, [late], { signal: controller.signal })).rejects.toMatchObject({
    name: 'AbortError',
  });
  expect(readSafetensorsHeader(file).map(({ name }) => name)).toEqual(['old']);
  expect(readdirSync(folder)).toEqual(['a.safetensors']);
});

it('replaces what a link points to, and nothing but files', async () => {
  const at = (name: string): string => join(folder, name);
  execFileSync('mkfifo', [at('pipe')]);
  symlinkSync('pipe', at('to-pipe'));
  for (const name of ['pipe', 'to-pipe'])
    await expect(writeSafetensors(at(name), [tensor('a', 'U8', 3)])).rejects.toMatchObject({
      code: 'ERR_OUTPUT_UNWRITABLE',
    });
  writeFileSync(at('file'), 'old');
  symlinkSync('file', at('link'));
  await writeSafetensors(at('link'), [tensor('a', 'U8', 3)]);
  expect(lstatSync(at('link')).isSymbolicLink()).toBe(true);
  expect(readSafetensorsHeader(at('file'))).toHaveLength(1);
  expect(readdirSync(folder).sort()).toEqual(['file', 'link', 'pipe', 'to-pipe']);
});

it('writes shards with an index', async () => {
  await writeCheckpoint(folder, [tensor('a', 'U8', 6), tensor('b', 'U8', 6), tensor('c', 'U8', 3)], { shardBytes: 10 });
  expect([...openCheckpoint(folder).keys()].sort()).toEqual(['a', 'b', 'c']);
  expect(readdirSync(folder).sort()).toEqual([
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
    'model.safetensors.index.json',
  ]);
});
