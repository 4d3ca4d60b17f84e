// An existing target is complete, even after interruptions and with concurrent writers.

import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  fullDiskIn,
  installOnce,
  isTemporary,
  markUsed,
  removeAtOnce,
  removeStale,
  replaceFile,
  requireSpace,
  temporaryName,
  writeError,
} from '../../src/runtime/atomic';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-atomic-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Writes a folder of two files, waiting for `between` after the first. */
function writer(text: string, between: Promise<void> = Promise.resolve()) {
  return async (path: string) => {
    mkdirSync(path);
    writeFileSync(join(path, 'first'), text);
    await between;
    writeFileSync(join(path, 'second'), text);
  };
}

const contents = (path: string) => ['first', 'second'].map((name) => readFileSync(join(path, name), 'utf8'));

describe('installOnce', () => {
  test('installs once, and leaves nothing else', async () => {
    const target = join(folder, 'deep', 'target');
    expect(await installOnce(target, writer('a'))).toBe(true);
    expect(await installOnce(target, writer('b'))).toBe(false);
    expect(contents(target)).toEqual(['a', 'a']);
    expect(readdirSync(join(folder, 'deep'))).toEqual(['target']);
  });

  test('an unfinished target is invisible', async () => {
    const target = join(folder, 'target');
    let finish: () => void = () => undefined;
    const running = installOnce(target, writer('a', new Promise((done) => (finish = done))));
    await new Promise((done) => setImmediate(done));
    expect(existsSync(target)).toBe(false);
    finish();
    expect(await running).toBe(true);
    expect(contents(target)).toEqual(['a', 'a']);
  });

  test('removes its temporary when building fails, and the next call succeeds', async () => {
    const target = join(folder, 'target');
    const fail = writer('a', Promise.reject(new Error('disk full')));
    await expect(installOnce(target, fail)).rejects.toThrow('disk full');
    expect(readdirSync(folder)).toEqual([]);
    expect(await installOnce(target, writer('b'))).toBe(true);
    expect(contents(target)).toEqual(['b', 'b']);
  });

  test('a temporary of a killed process does not interfere', async () => {
    const target = join(folder, 'target');
    await writer('half')(`${target}.tmp-0123456789abcdef`);
    expect(await installOnce(target, writer('whole'))).toBe(true);
    expect(contents(target)).toEqual(['whole', 'whole']);
  });

  test('two concurrent calls succeed, and one result is installed completely', async () => {
    const target = join(folder, 'target');
    const results = await Promise.all(['a', 'b', 'c'].map((text) => installOnce(target, writer(text))));
    expect(results.filter((installed) => installed)).toHaveLength(1);
    const [first, second] = contents(target);
    expect(first).toBe(second);
    expect(readdirSync(folder)).toEqual(['target']);
  });

  test('a failure does not matter when another has installed the target meanwhile', async () => {
    const target = join(folder, 'target');
    const build = async () => {
      await writer('theirs')(target);
      throw new Error('the source is gone');
    };
    expect(await installOnce(target, build)).toBe(false);
    expect(contents(target)).toEqual(['theirs', 'theirs']);
  });
});

describe('removal', () => {
  test.each([
    ['x.tmp-0123456789abcdef', 0.9, false],
    ['x.tmp-0123456789abcdef', 1.1, true],
    ['native-0123456789abcdef-01234567', 29, false],
    ['native-0123456789abcdef-01234567', 31, true],
    ['native-0123456789abcdef-01234567.log', 31, true],
    ['build-0123456789abcdef', 31, true],
    ['libtensorflow-2.21.0-x64', 1000, false],
    ['x.tmp-short', 1000, false],
    ['something of the user', 1000, false],
  ])('%s unused for %d days is removed: %s', async (name, days, removed) => {
    const now = Date.now();
    mkdirSync(join(folder, name));
    utimesSync(join(folder, name), now / 1000 - days * 86400, now / 1000 - days * 86400);
    expect(await removeStale(folder, now)).toEqual(removed ? [name] : []);
    expect(readdirSync(folder)).toEqual(removed ? [] : [name]);
  });

  test('what is marked as used is kept', async () => {
    const path = join(folder, 'native-0123456789abcdef-01234567');
    mkdirSync(path);
    utimesSync(path, 0, 0);
    await markUsed(path);
    expect(await removeStale(folder)).toEqual([]);
  });

  test('removeAtOnce removes a folder, and ignores a missing one', async () => {
    const target = join(folder, 'target');
    await writer('a')(target);
    await removeAtOnce(target);
    await removeAtOnce(target);
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe('replaceFile', () => {
  test('writes a file whole, in a folder that it makes, and replaces what was there', () => {
    const file = join(folder, 'deep', 'file');
    for (const text of ['one', 'two']) {
      replaceFile(file, text);
      expect(readFileSync(file, 'utf8')).toBe(text);
    }
    expect(readdirSync(join(folder, 'deep'))).toEqual(['file']);
  });

  test('keeps a link, and replaces what it points to', () => {
    writeFileSync(join(folder, 'file'), 'old');
    symlinkSync('file', join(folder, 'link'));
    replaceFile(join(folder, 'link'), 'new');
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('new');
    expect(readdirSync(folder).sort()).toEqual(['file', 'link']);
  });

  test('takes a name of 255 bytes', () => {
    replaceFile(join(folder, 'ä'.repeat(127)), '');
    expect(readdirSync(folder)).toHaveLength(1);
  });

  test.each<[string, (path: string) => void, RegExp]>([
    ['a folder', (path) => mkdirSync(path), /it is a directory/],
    ['a FIFO', (path) => execFileSync('mkfifo', [path]), /it is a FIFO/],
    ['a device', (path) => symlinkSync('/dev/null', path), /it is a device/],
    ['a link to nothing', (path) => symlinkSync('/no/where', path), /link to nothing/],
    ['a link to itself', (path) => symlinkSync('file', path), /leads back to itself/],
  ])('refuses %s', (_, make, reason) => {
    const file = join(folder, 'file');
    make(file);
    expect(() => replaceFile(file, 'x')).toThrow(
      expect.objectContaining({ code: 'ERR_OUTPUT_UNWRITABLE', message: expect.stringMatching(reason) }),
    );
    expect(readdirSync(folder)).toEqual(['file']);
  });

  test('a file below a file, and a name that is too long', () => {
    writeFileSync(join(folder, 'file'), '');
    for (const name of ['file/below', 'n'.repeat(300)])
      expect(() => replaceFile(join(folder, name), 'x')).toThrow(
        expect.objectContaining({ code: 'ERR_OUTPUT_UNWRITABLE', message: expect.stringContaining(folder) }),
      );
  });

  test('a disk without space leaves the old file, and nothing else', () => {
    const file = join(folder, 'file');
    replaceFile(file, 'old');
    const atomic = JSON.stringify(join(__dirname, '../../src/runtime/atomic.js'));
    const script = `try { require(${atomic}).replaceFile(process.argv[1], Buffer.alloc(1e6)); } catch (error) { console.log(error.code); }`;
    // A limit on the size of files stands for the disk: it needs no other file system.
    const limited = `ulimit -f 64; exec "$0" -e '${script.replaceAll("'", "'\\''")}' "$1"`;
    expect(execFileSync('sh', ['-c', limited, process.execPath, file], { encoding: 'utf8' })).toBe('ERR_DISK_FULL\n');
    expect(readFileSync(file, 'utf8')).toBe('old');
    expect(readdirSync(folder)).toEqual(['file']);
  });
});

describe('errors of writing', () => {
  const failed = (code: string, syscall = 'write') => Object.assign(new Error(code), { code, syscall });

  test.each([
    ['ENOSPC', 'ERR_DISK_FULL', /no space.*Free some/],
    ['EDQUOT', 'ERR_DISK_FULL', /quota/],
    ['EFBIG', 'ERR_DISK_FULL', /ulimit -f/],
    ['EROFS', 'ERR_OUTPUT_UNWRITABLE', /read-only/],
    ['EACCES', 'ERR_OUTPUT_UNWRITABLE', /permission denied/],
    ['EMFILE', 'ERR_OUTPUT_UNWRITABLE', /ulimit -n/],
    ['EIO', 'ERR_OUTPUT_UNWRITABLE', /input\/output error/],
  ])('%s is %s', (code, ours, message) => {
    const error = writeError(failed(code), '/a/file\x1b[1m');
    expect(error).toMatchObject({ code: ours, message: expect.stringMatching(message) });
    expect(error).toMatchObject({ message: expect.stringContaining('/a/file\\u001b[1m') });
  });

  test('other errors are returned unchanged', () => {
    for (const other of [new Error('other'), failed('ENOENT', 'spawn pip'), failed('ECONNREFUSED', 'connect')])
      expect(writeError(other, 'x')).toBe(other);
  });

  test('a program that says that the disk is full', () => {
    expect(fullDiskIn(['g++: fatal error: error writing to -: No space left on device'], 'x')).toMatchObject({
      code: 'ERR_DISK_FULL',
    });
    expect(fullDiskIn(['syntax error'], 'x')).toBeUndefined();
  });

  test('disk space is checked in advance', async () => {
    await requireSpace(folder, 1);
    const wanted = requireSpace(folder, 2 ** 60, 'Set X.');
    await expect(wanted).rejects.toMatchObject({
      code: 'ERR_DISK_FULL',
      message: expect.stringMatching(/free.*Set X/),
    });
  });
});

test('the name of a temporary is recognized', () => {
  expect(isTemporary(temporaryName('/a/b'))).toBe(true);
  expect(isTemporary('model.safetensors')).toBe(false);
});
