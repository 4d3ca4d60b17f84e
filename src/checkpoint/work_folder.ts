// The folder of an unfinished checkpoint: beside the final name, with a record of finished steps, so that a killed run
// can continue and nothing incomplete ever has the final name. Does not know what is made.

import { createHash } from 'node:crypto';
import { readdirSync, realpathSync, rmSync, statSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { SparseVilaError } from '../errors';
import { isPresent, shownPath } from '../files';
import { readJson } from '../json';
import { replaceFile, syncFolder, writeError } from '../runtime/atomic';
import { isLockFile, type Lock, takeLock } from '../runtime/lock';
import type { TensorEntry } from './safetensors';

export interface WorkFolder {
  /** The folder for the files of finished steps. */
  readonly folder: string;
  /** The record of each finished step, by its name. */
  readonly finished: ReadonlyMap<string, unknown>;
  /** Records a step whose files are complete. */
  finish(step: string, result: unknown): void;
  /** Gives the final name to `made`, a folder below `folder` with a complete checkpoint; removes the work folder. */
  install(made: string): Promise<void>;
  /** Releases the lock; removes the folder if no step has finished. */
  close(): void;
}

/** The inputs of a run as one text: its options, and names, sizes and times of the tensors and files that it reads. */
export function runKey(options: unknown, entries: readonly TensorEntry[]): string {
  const hash = createHash('sha256').update(JSON.stringify(options));
  for (const { name, dtype, shape, offset } of entries) hash.update(JSON.stringify([name, dtype, shape, offset]));
  for (const file of new Set(entries.map((entry) => entry.file))) {
    const { size, mtimeMs } = statSync(file);
    hash.update(JSON.stringify([size, mtimeMs]));
  }
  return hash.digest('hex');
}

const RECORD = 'resume.json';
/** The last step, after which the checkpoint gets its final name. */
const INSTALL = 'install';

/**
 * Opens the work folder of `out`, and continues an earlier run with the same `key`.
 * @param inputs the model folder and other files that are read: `out` must be apart from them
 * @throws SparseVilaError `ERR_OUTPUT_EXISTS`; `ERR_OUTPUT_INSIDE` (an input in the output, or the reverse); `ERR_RESUME_MISMATCH` when
 *   an unfinished run had other options or inputs; `ERR_BUSY` when another process works on it; `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`
 */
export function openWorkFolder(out: string, key: string, inputs: readonly string[] = []): WorkFolder {
  const target = resolve(out);
  const folder = join(dirname(target), `${basename(target)}.partial`);
  const overlap = overlapOf(inputs, target, folder);
  if (isPresent(target)) {
    if (overlap === undefined) removeInstalled(folder);
    throw outputExists(target);
  }
  if (overlap !== undefined) throw overlap;
  const lock = takeLock(folder);
  try {
    return opened(target, folder, lock, key);
  } catch (error) {
    lock.release();
    throw error;
  }
}

function opened(target: string, folder: string, lock: Lock, key: string): WorkFolder {
  const record = join(folder, RECORD);
  const finished = readRecord(record, key, folder);
  const finish = (step: string, result: unknown): void => {
    finished.set(step, result);
    replaceFile(record, JSON.stringify({ key, finished: Object.fromEntries(finished) }));
  };
  const install = async (made: string): Promise<void> => {
    finish(INSTALL, true);
    if (isPresent(target)) throw outputExists(target); // rename would replace an empty folder
    try {
      syncFolder(made);
      await rename(made, target);
      syncFolder(dirname(target));
    } catch (error) {
      throw writeError(error, target);
    }
    finished.clear();
    removeAllButLock(folder);
  };
  return {
    folder,
    finished,
    finish,
    install,
    close: () => {
      if (finished.size === 0) removeAllButLock(folder);
      lock.release();
    },
  };
}

/** Removes a folder's content before its lock is released, so that nothing of the next holder is removed. */
function removeAllButLock(folder: string): void {
  for (const name of readdirSync(folder))
    if (!isLockFile(name)) rmSync(join(folder, name), { recursive: true, force: true });
}

/** Removes the work folder of a run that was killed between giving the checkpoint its name and this. */
function removeInstalled(folder: string): void {
  if (!isPresent(join(folder, RECORD))) return;
  let lock: Lock | undefined;
  try {
    lock = takeLock(folder);
    const { finished } = readJson(join(folder, RECORD));
    if (Object.hasOwn(finished ?? {}, INSTALL)) removeAllButLock(folder);
  } catch {
    // Another process is about to remove it, or this is not a work folder.
  } finally {
    lock?.release();
  }
}

/** The error for an input inside an output or the reverse, compared by real paths, because of links and `..`. */
function overlapOf(inputs: readonly string[], target: string, folder: string): SparseVilaError | undefined {
  const contains = (outer: string, inner: string): boolean => `${inner}${sep}`.startsWith(`${outer}${sep}`);
  for (const input of inputs) {
    const real = realOf(resolve(input));
    for (const output of [target, folder].map(realOf)) {
      const isInside = contains(real, output);
      if (!isInside && !contains(output, real)) continue;
      const what = isInside ? 'the output would lie in the input' : 'the input lies where the output is made';
      const message = `${shownPath(target)}: ${what}, ${shownPath(input)}. Give an --out beside it.`;
      return new SparseVilaError('ERR_OUTPUT_INSIDE', message);
    }
  }
  return undefined;
}

/** The real path of a file that may not exist yet. */
function realOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realOf(parent), basename(path));
  }
}

function outputExists(target: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_OUTPUT_EXISTS',
    `Expected a new folder as output, but ${shownPath(target)} exists. Give another name or remove it.`,
  );
}

function readRecord(file: string, key: string, folder: string): Map<string, unknown> {
  const begin = (): Map<string, unknown> => {
    replaceFile(file, JSON.stringify({ key, finished: {} }));
    return new Map();
  };
  if (!isPresent(file)) return begin();
  const { key: other, finished } = readJson(file);
  const steps = Object.entries(finished ?? {}).filter(([step]) => step !== INSTALL);
  if (other === key) return new Map(steps);
  if (steps.length === 0) return begin();
  throw new SparseVilaError(
    'ERR_RESUME_MISMATCH',
    `${shownPath(folder)}: an unfinished run with other options, another calibration set or another model lies here. ` +
      'Repeat its command to continue it, give another --out, or remove that folder to start over.',
  );
}
