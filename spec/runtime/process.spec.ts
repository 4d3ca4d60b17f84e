// Running other programs: their lines, exit codes, logs and aborts.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { percentOf } from '../../src/runtime/cmake';
import { findProgram, run } from '../../src/runtime/process';

const node = (script: string) => ['-e', script] as const;

describe('run', () => {
  test('gives the lines of both streams, the exit code, and a log', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sparsevila-process-'));
    const log = join(folder, 'log');
    const lines: string[] = [];
    const script = "console.log('out'); console.error('err'); process.exit(3)";
    const { code, tail } = await run(process.execPath, node(script), { log, onLine: (line) => lines.push(line) });
    expect(code).toBe(3);
    expect([...lines].sort()).toEqual(['err', 'out']);
    expect(tail).toEqual(lines);
    expect(readFileSync(log, 'utf8')).toMatch(/^\$ .*\n(out\nerr|err\nout)\n$/);
    rmSync(folder, { recursive: true });
  });

  test('keeps the last 40 lines', async () => {
    const { tail } = await run(process.execPath, node('for (let i = 0; i < 100; i++) console.log(i)'));
    expect(tail).toEqual(Array.from({ length: 40 }, (_, i) => String(60 + i)));
  });

  test('ends the program on abort', async () => {
    const controller = new AbortController();
    const running = run(process.execPath, node("console.log('ready'); setInterval(() => {}, 1000)"), {
      signal: controller.signal,
      onLine: () => controller.abort(),
    });
    await expect(running).rejects.toMatchObject({ name: 'AbortError' });
  });

  test('fails when there is no such program', async () => {
    await expect(run('/no/such/program', [])).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

test.each([
  ['a full disk', '/dev/full', 'ERR_DISK_FULL'],
  ['a folder that is not there', '/no/such/folder/log', 'ERR_OUTPUT_UNWRITABLE'],
])('a log on %s ends the program with an error that names it', async (_, log, code) => {
  const forever = node("setInterval(() => console.log('x'.repeat(1000)), 10)");
  await expect(run(process.execPath, forever, { log })).rejects.toMatchObject({
    code,
    message: expect.stringContaining(log),
  });
});

test('findProgram takes the first name that PATH has', () => {
  const node = findProgram(['no-such-program', 'node'], { PATH: `/no/such/folder:${join(process.execPath, '..')}` });
  expect(node).toBe(process.execPath);
  expect(findProgram(['node'], { PATH: '' })).toBeUndefined();
});

test.each([
  ['[ 12%] Building CXX object a.cc.o', 12],
  ['[100%] Built target a', 100],
  ['[3/24] Building CXX object a.cc.o', 12],
  ['-- Configuring done', undefined],
])('progress of %j is %j', (line, percent) => {
  expect(percentOf(line)).toBe(percent);
});
