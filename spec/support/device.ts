// Runs a script of the specs on a device in a separate process, because a process has only one device. Does not know what the
// script does.

import { spawn } from 'node:child_process';
import { join } from 'node:path';

const ROOT = join(__dirname, '../../..');

export type DeviceName = 'cpu' | 'standin' | 'gpu';

/** What `print` of the script, a path in spec/ without ending, was given. Rejects with all it wrote when it fails. */
export async function runOn<T>(device: DeviceName, script: string): Promise<T> {
  const child = spawn(process.execPath, [join(ROOT, 'dist/spec', `${script}.js`)], {
    cwd: ROOT,
    // Of two devices, so that launches on another than the op's fail.
    env: {
      ...process.env,
      SPARSEVILA_DEVICE: device,
      ...(device === 'standin' && { SPARSEVILA_STANDIN: 'devices=2' }),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, all] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
    all += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    all += text;
  });
  const ended = await new Promise<string>((done, fail) => {
    child.once('error', fail);
    child.once('close', (code, signal) => done(String(signal ?? code)));
  });
  const line = out
    .split('\n')
    .filter((text) => text.startsWith(MARKER))
    .at(-1);
  if (ended !== '0' || line === undefined)
    throw new Error(`${script} on ${device} ended with ${ended}:\n${all.slice(-4000)}`);
  return JSON.parse(line.slice(MARKER.length)) as T;
}

const MARKER = 'result: ';

/** Called in such a script: sets the result of `runOn`. */
export function print(result: unknown): void {
  process.stdout.write(`${MARKER}${JSON.stringify(result)}\n`);
}
