// One holder at a time, even if processes die, and no lock that outlives its owner.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs, {
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
import { isLockFile, takeLock } from '../../src/runtime/lock';
import { leaveLock, lockScript } from './locks';

let parent: string;
let folder: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'sparsevila-lock-'));
  folder = join(parent, 'locked');
});
afterEach(() => rmSync(parent, { recursive: true }));

const busy = expect.objectContaining({ code: 'ERR_BUSY', message: expect.stringMatching(/process \d+ on .* working/) });
const recordOf = (): string => join(folder, readdirSync(folder).find((name) => /^lock-[0-9a-f]+$/.test(name)) ?? '');

/** Changes what the record of the folder's holder says. */
function rewrite(changes: Record<string, unknown>): void {
  const record = recordOf();
  writeFileSync(record, JSON.stringify({ ...JSON.parse(readFileSync(record, 'utf8')), ...changes }));
}

test("a second holder is refused; the first one's release removes the folder", () => {
  const lock = takeLock(folder);
  expect(lock.wasAbandoned).toBe(false);
  expect(readdirSync(folder).every(isLockFile)).toBe(true);
  expect(() => takeLock(folder)).toThrow(busy);
  lock.release();
  expect(existsSync(folder)).toBe(false);
  takeLock(folder).release();
});

test('other files in the folder stay', () => {
  mkdirSync(folder);
  writeFileSync(join(folder, 'work'), '');
  takeLock(folder).release();
  expect(readdirSync(folder)).toEqual(['work']);
});

test('a folder that vanishes once, after many withdrawals, is tried again', () => {
  const other = takeLock(folder);
  const soon = new Date(Date.now() + 60_000);
  utimesSync(recordOf(), soon, soon); // as young as the record of a contender who is about to withdraw
  const { openSync } = fs;
  let opened = 0;
  const watched = jest.spyOn(fs, 'openSync').mockImplementation((path, ...rest) => {
    if (path === folder && ++opened === 12) other.release(); // between making the folder and using it
    return openSync(path, ...rest);
  });
  try {
    takeLock(folder).release();
    expect(opened).toBe(13);
  } finally {
    watched.mockRestore();
  }
});

test('the lock of a killed process is free, and its files are removed', () => {
  leaveLock(folder);
  expect(readdirSync(folder)).toHaveLength(2);
  const lock = takeLock(folder);
  expect(lock.wasAbandoned).toBe(true);
  expect(readdirSync(folder)).toHaveLength(2);
  lock.release();
  expect(existsSync(folder)).toBe(false);
});

test('a reused process id is not the owner', () => {
  leaveLock(folder);
  rewrite({ pid: process.pid });
  expect(takeLock(folder).wasAbandoned).toBe(true);
});

describe('an owner in another container', () => {
  const elsewhere = { pidNamespace: 'pid:[1]', pid: 1 };

  test('is dead if its socket has no listener', () => {
    leaveLock(folder);
    rewrite(elsewhere);
    expect(takeLock(folder).wasAbandoned).toBe(true);
  });

  test('is alive while it listens, even if it is busy', async () => {
    const child = spawn(process.execPath, ['-e', lockScript('console.log(1);for(;;);'), folder]);
    try {
      await once(child.stdout, 'data');
      rewrite(elsewhere);
      expect(() => takeLock(folder)).toThrow(busy);
    } finally {
      const exit = once(child, 'exit');
      child.kill('SIGKILL');
      await exit;
    }
    expect(takeLock(folder).wasAbandoned).toBe(true);
  });

  test('counts as alive if the kernel cannot tell, and the error names the file to remove', () => {
    leaveLock(folder);
    rewrite(elsewhere);
    const record = recordOf();
    rmSync(`${record}.sock`);
    expect(() => takeLock(folder)).toThrow(`remove ${record}`);
    rmSync(record);
    takeLock(folder).release();
  });
});

test('owners from before the last boot are dead', () => {
  leaveLock(folder);
  rewrite({ boot: 'another', pid: process.pid });
  expect(takeLock(folder).wasAbandoned).toBe(true);
});

test('a broken record, as after a power cut, has no owner', () => {
  mkdirSync(folder);
  writeFileSync(join(folder, 'lock-0123456789abcdef'), '');
  expect(takeLock(folder).wasAbandoned).toBe(true);
});

test('a folder with a path longer than a socket may have', () => {
  const deep = join(folder, 'a'.repeat(100), 'b'.repeat(100));
  const lock = takeLock(deep);
  expect(readdirSync(deep).some((name) => name.endsWith('.sock'))).toBe(true);
  lock.release();
});

test('a folder that cannot be made: below /proc, and in place of a dangling link', () => {
  symlinkSync('nowhere', folder);
  for (const path of [folder, '/proc/sparsevila', '/proc/sparsevila/deep'])
    expect(() => takeLock(path)).toThrow(expect.objectContaining({ code: 'ERR_OUTPUT_UNWRITABLE' }));
});

test('a file in place of the folder', () => {
  writeFileSync(folder, '');
  expect(() => takeLock(folder)).toThrow(expect.objectContaining({ code: 'ERR_OUTPUT_UNWRITABLE' }));
});

test('of several processes that repeatedly take and release the lock, never do two hold it', async () => {
  const loop = `
    lock.release();
    const fs = require('node:fs'), { takeLock } = require(${JSON.stringify(join(__dirname, '../../src/runtime/lock.js'))});
    const count = { got: 0, both: 0 };
    for (const end = Date.now() + 1500; Date.now() < end; ) {
      let held;
      try { held = takeLock(process.argv[1]); } catch (error) { if (error.code === 'ERR_BUSY') continue; throw error; }
      count.got++;
      try { fs.mkdirSync(process.argv[1] + '.held'); fs.rmdirSync(process.argv[1] + '.held'); } catch { count.both++; }
      held.release();
    }
    console.log(JSON.stringify(count));`;
  const results = [0, 1, 2].map(async () => {
    // Each process starts separately; they contend for another folder.
    const own = mkdtempSync(join(parent, 'own-'));
    const script = lockScript(loop).replace('takeLock(process.argv[1]);', `takeLock(${JSON.stringify(own)});`);
    const child = spawn(process.execPath, ['-e', script, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (data) => {
      text += data;
    });
    await once(child, 'close');
    return JSON.parse(text) as { got: number; both: number };
  });
  const counts = await Promise.all(results);
  expect(counts.reduce((sum, { got }) => sum + got, 0)).toBeGreaterThan(3);
  expect(counts.map(({ both }) => both)).toEqual([0, 0, 0]);
});
