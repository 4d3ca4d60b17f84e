// Starts TensorFlow in a separate process, because a process has only one device.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { Probe } from '../../src/runtime/probe';

const PROGRAM = join(__dirname, '../../src/runtime/probe.js');

/** TensorFlow's device with an environment, or the error. */
export function probe(env: NodeJS.ProcessEnv): Probe {
  const child = spawnSync(process.execPath, [PROGRAM], { encoding: 'utf8', env: { ...process.env, ...env } });
  const last = child.stdout.trim().split('\n').at(-1) ?? '';
  if (!last.startsWith('{')) throw new Error(`Expected JSON but received ${child.stdout}\n${child.stderr}`);
  return JSON.parse(last) as Probe;
}
