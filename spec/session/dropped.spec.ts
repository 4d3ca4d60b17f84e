// Sessions and answers that are dropped without `dispose` are freed once the garbage collector has found them. Each case is a process,
// because V8 calls no finalizer any more in a process where a registry was collected between its entry in V8's list and the call,
// as happens to the registries of specs that have ended (Node 20, 22 and 24).

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Dropped } from './dropped_script';

const SCRIPT = join(__dirname, 'dropped_script.js');

async function run<T>(script: string): Promise<{ seen: T; warnings: string[] }> {
  const env = { ...process.env, TF_CPP_MIN_LOG_LEVEL: '3' };
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', SCRIPT, script], { env });
  return JSON.parse(stdout) as { seen: T; warnings: string[] };
}

describe('objects that are dropped without dispose', () => {
  it('are freed, with one warning: sessions, sessions after a turn, and answers between two pieces', async () => {
    const { seen, warnings } = await run<Dropped>('objects');
    expect(seen.held.tfjs).toBeGreaterThan(seen.before.tfjs);
    expect(seen.after).toEqual(seen.before);
    expect(warnings).toEqual(['SPARSEVILA_DROPPED']);
  });

  it('a dropped iteration ends, and the session can be used again', async () => {
    expect((await run('iteration')).seen).toEqual(['ERR_BUSY', 'red F']);
  });

  it('a session is kept while one of its answers or iterations is reachable', async () => {
    const { seen } = await run<[string, string]>('reachable');
    expect(seen[1]).toBe(seen[0]);
    expect(seen[0]).not.toBe('');
  });
});
