// Threads: the main one and workers of `worker_threads` use the package at the same time, one after another, and are
// terminated at any moment. Each case is a process, since what goes wrong here ends it or never ends.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const SCRIPT = join(__dirname, 'thread_script.js');
const HANG_MS = 300_000;

/** What the threads answered. Rejects when the process ends with anything but 0, or not at all. */
async function run(script: string, threads: number): Promise<string[][]> {
  const { stdout } = await promisify(execFile)(process.execPath, [SCRIPT, script], {
    env: { ...process.env, SPARSEVILA_THREADS: String(threads), TF_CPP_MIN_LOG_LEVEL: '3' },
    timeout: HANG_MS,
    killSignal: 'SIGKILL',
  });
  return JSON.parse(stdout) as string[][];
}

const same = (count: number): string[] => Array.from({ length: count }, () => 'd5');

describe.each([1, 2])('with %d kernel threads', (threads) => {
  test('one worker alone works to its end', async () => {
    expect(await run('alone', threads)).toEqual([same(2)]);
  });

  test('a worker, another one after it, then the main thread', async () => {
    expect(await run('inARow', threads)).toEqual([same(1), same(1), same(1)]);
  });

  test('the main thread and two workers at the same time', async () => {
    expect(await run('together', threads)).toEqual([same(6), same(6), same(6)]);
  });

  test('terminating a worker while it loads or answers does not affect others', async () => {
    expect(await run('terminated', threads)).toEqual([same(4), same(1)]);
  });
});
