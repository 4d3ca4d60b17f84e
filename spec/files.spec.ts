// Other kinds of files in place of a regular one: each gives a coded error that names the path at once, and nothing outside the folder is read.
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  insideFolder,
  isFolder,
  isPresent,
  openRegular,
  openRegularHandle,
  readFileBounded,
  readFileBoundedAsync,
  readRange,
  readTextFile,
  shownPath,
} from '../src/files';

const OPTIONS = { what: 'a test file', limit: 1000 } as const;
const error = (code: string, message: RegExp) =>
  expect.objectContaining({ name: 'SparseVilaError', code, message: expect.stringMatching(message) });

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'files-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Each function makes `path` something that is not a readable regular file. */
const KINDS: readonly (readonly [what: string, make: (path: string) => void, code: string, reason: RegExp])[] = [
  ['nothing', () => undefined, 'ERR_FILE_MISSING', /no such file/],
  ['a directory', (path) => mkdirSync(path), 'ERR_FILE_UNREADABLE', /it is a directory/],
  ['a FIFO', (path) => execFileSync('mkfifo', [path]), 'ERR_FILE_UNREADABLE', /it is a FIFO/],
  ['a link to a FIFO', linkedFifo, 'ERR_FILE_UNREADABLE', /it is a FIFO/],
  ['a device', (path) => symlinkSync('/dev/zero', path), 'ERR_FILE_UNREADABLE', /it is a device/],
  [
    'a dangling link',
    (path) => symlinkSync('nowhere', path),
    'ERR_FILE_UNREADABLE',
    /link to a file that is not there/,
  ],
  ['a link to itself', (path) => symlinkSync('file', path), 'ERR_FILE_UNREADABLE', /leads back to itself/],
];

function linkedFifo(path: string): void {
  execFileSync('mkfifo', [`${path}.pipe`]);
  symlinkSync(`${path}.pipe`, path);
}

describe('something else in place of a file', () => {
  test.each(KINDS)('%s', async (_, make, code, reason) => {
    const path = join(folder, 'file');
    make(path);
    for (const read of [openRegular, readFileBounded, readTextFile])
      expect(() => read(path, OPTIONS)).toThrow(error(code, reason));
    for (const read of [openRegularHandle, readFileBoundedAsync])
      await expect(read(path, OPTIONS)).rejects.toEqual(error(code, reason));
    expect(() => openRegular(path, OPTIONS)).toThrow(path);
  });

  test('a socket', async () => {
    const path = join(folder, 'file');
    const server = createServer().listen(path);
    await new Promise((done) => server.once('listening', done));
    expect(() => openRegular(path, OPTIONS)).toThrow(error('ERR_FILE_UNREADABLE', /it is a socket/));
    await new Promise((done) => server.close(done));
  });

  test('a file where a folder is expected, a name that is too long, and a NUL', () => {
    writeFileSync(join(folder, 'file'), 'x');
    expect(() => openRegular(join(folder, 'file/below'), OPTIONS)).toThrow(
      error('ERR_FILE_MISSING', /not a directory/),
    );
    expect(() => openRegular(join(folder, 'n'.repeat(5000)), OPTIONS)).toThrow(error('ERR_FILE_MISSING', /too long/));
    expect(() => openRegular(join(folder, 'a\0b'), OPTIONS)).toThrow(error('ERR_FILE_MISSING', /NUL/));
  });

  test('the caller chooses the codes', () => {
    const codes = { ...OPTIONS, missing: 'ERR_CONFIG_MISSING', unreadable: 'ERR_CONFIG_INVALID' } as const;
    expect(() => openRegular(join(folder, 'x'), codes)).toThrow(error('ERR_CONFIG_MISSING', /a test file/));
    expect(() => openRegular(folder, codes)).toThrow(error('ERR_CONFIG_INVALID', /a test file/));
  });
});

describe('reading', () => {
  test('links to regular files are followed, even out of the folder, as in the Hugging Face cache', async () => {
    mkdirSync(join(folder, 'blobs'));
    mkdirSync(join(folder, 'snapshots/x'), { recursive: true });
    writeFileSync(join(folder, 'blobs/abc'), '\uFEFFgrüße');
    const link = join(folder, 'snapshots/x/config.json');
    symlinkSync('../../blobs/abc', link);
    expect(readTextFile(link, OPTIONS)).toBe('grüße');
    expect((await readFileBoundedAsync(link, OPTIONS)).toString()).toBe('\uFEFFgrüße');
  });

  test('a size over the limit is refused before it is read', async () => {
    const path = join(folder, 'sparse');
    writeFileSync(path, '');
    truncateSync(path, 2 ** 40);
    expect(() => readFileBounded(path, OPTIONS)).toThrow(error('ERR_FILE_TOO_LARGE', /at most 1000 bytes/));
    await expect(readFileBoundedAsync(path, OPTIONS)).rejects.toEqual(error('ERR_FILE_TOO_LARGE', /sparse/));
  });

  test('a file that shrinks or grows while it is read is an error', async () => {
    const path = join(folder, 'file');
    writeFileSync(path, 'x'.repeat(100));
    const { fd, size } = openRegular(path, OPTIONS);
    truncateSync(path, 50);
    expect(() => readRange(fd, Buffer.alloc(size), 0, path)).toThrow(error('ERR_FILE_CHANGED', /changed while/));
    for (const change of [() => truncateSync(path, 10), () => appendFileSync(path, 'more')]) {
      writeFileSync(path, 'x'.repeat(100));
      await expect(readFileBoundedAsync(path, { ...OPTIONS, check: change })).rejects.toEqual(
        error('ERR_FILE_CHANGED', /changed while/),
      );
    }
  });

  test('the first bytes are checked before the rest is read', async () => {
    const path = join(folder, 'film');
    writeFileSync(path, 'ftyp');
    truncateSync(path, 2 ** 40);
    const check = (head: Uint8Array) => {
      throw new RangeError(Buffer.from(head.subarray(0, 4)).toString());
    };
    await expect(readFileBoundedAsync(path, { ...OPTIONS, check })).rejects.toThrow('ftyp');
  });

  test('text that is not UTF-8', () => {
    const path = join(folder, 'text');
    writeFileSync(path, Buffer.from([0x61, 0xff]));
    expect(() => readTextFile(path, OPTIONS)).toThrow(error('ERR_FILE_ENCODING', /another encoding/));
    writeFileSync(path, Buffer.from('\uFEFFhello', 'utf16le'));
    expect(() => readTextFile(path, OPTIONS)).toThrow(error('ERR_FILE_ENCODING', /UTF-16/));
  });
});

describe('names', () => {
  test('isPresent sees a dangling link and a link loop; isFolder follows links', () => {
    symlinkSync('nowhere', join(folder, 'dangling'));
    symlinkSync('loop', join(folder, 'loop'));
    symlinkSync('.', join(folder, 'here'));
    const names = ['dangling', 'loop', 'here', 'none', 'none/below', 'n'.repeat(300)];
    expect(names.map((name) => isPresent(join(folder, name)))).toEqual([true, true, true, false, false, false]);
    expect(names.map((name) => isFolder(join(folder, name)))).toEqual([false, false, true, false, false, false]);
  });

  test.each(['../x', '/etc/passwd', 'a/../../x', '..', '', 'a\0b', 'a\\b'])('%j leaves the folder', (name) => {
    expect(() => insideFolder('/m', name, { what: 'a shard' })).toThrow(error('ERR_PATH_OUTSIDE', /a shard inside/));
    expect(() => insideFolder('/m', name, { what: 'a shard', code: 'ERR_CHECKPOINT_INVALID' })).toThrow(
      error('ERR_CHECKPOINT_INVALID', /a shard/),
    );
  });

  test.each(['x', 'a/b', 'a/../b', '..x', './x'])('%j stays inside', (name) => {
    expect(insideFolder('/m', name, { what: 'a shard' })).toMatch(/^\/m\//);
  });

  test('a message contains no terminal escapes, line breaks or very long names', () => {
    expect(shownPath('a\x1b[31m\nb\u202ec')).toBe('a\\u001b[31m\\u000ab\\u202ec');
    expect(shownPath('x'.repeat(5000)).length).toBeLessThan(310);
  });
});
