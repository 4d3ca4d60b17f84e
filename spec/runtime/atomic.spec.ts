// A target that exists is complete, whoever was interrupted and whoever else was at work.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { installOnce, markUsed, removeAtOnce, removeStale } from '../../src/runtime/atomic';

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

  test('shows nothing of an unfinished target', async () => {
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

  test('a temporary that a killed process left is in nobody’s way', async () => {
    const target = join(folder, 'target');
    await writer('half')(`${target}.tmp-0123456789abcdef`);
    expect(await installOnce(target, writer('whole'))).toBe(true);
    expect(contents(target)).toEqual(['whole', 'whole']);
  });

  test('two at once both succeed, and one wins whole', async () => {
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

  test('removeAtOnce removes a folder, and minds no missing one', async () => {
    const target = join(folder, 'target');
    await writer('a')(target);
    await removeAtOnce(target);
    await removeAtOnce(target);
    expect(readdirSync(folder)).toEqual([]);
  });
});
