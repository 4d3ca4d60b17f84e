// Processes that take a lock and end without releasing it.
import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';

const LOCK = JSON.stringify(resolve(__dirname, '../../src/runtime/lock.js'));

/** A script that takes the lock of the folder in its first argument, and then runs `more`. */
export const lockScript = (more: string): string => `const lock = require(${LOCK}).takeLock(process.argv[1]);${more}`;

/** Has a process take the lock of `folder` and die as `kill -9` ends it. */
export function leaveLock(folder: string): void {
  try {
    execFileSync(process.execPath, ['-e', lockScript("process.kill(process.pid, 'SIGKILL');"), folder]);
  } catch (error) {
    if ((error as { signal?: string }).signal !== 'SIGKILL') throw error;
  }
}
