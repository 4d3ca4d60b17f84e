// Where an unfinished checkpoint is made: a folder beside the final name, with a file of what is finished, so that a killed run
// continues and nothing half-written ever has the final name. Knows nothing of what is made.

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { codeOf, SparseVilaError } from '../errors';
import { readJson } from '../json';
import { diskError } from './safetensors_writer';

export interface WorkFolder {
  /** Where finished steps' files go. */
  readonly folder: string;
  /** What each finished step left to remember, by its name. */
  readonly finished: ReadonlyMap<string, unknown>;
  /** Records a step whose files are complete. */
  finish(step: string, result: unknown): void;
  /** Makes the checkpoint in a fresh folder and gives it the final name; removes the work folder. */
  install(build: (folder: string) => Promise<void>): Promise<void>;
  /** Lets others in. What is finished stays; where nothing is, nothing stays. */
  close(): void;
}

const RECORD = 'resume.json';

/**
 * Opens the work folder of `out`, continuing what an earlier run with the same `key` left.
 * @throws SparseVilaError `ERR_OUTPUT_EXISTS`; `ERR_RESUME_MISMATCH` when an unfinished run had other options or inputs;
 *   `ERR_BUSY` when another process works on it; `ERR_DISK_FULL`
 */
export function openWorkFolder(out: string, key: string): WorkFolder {
  const target = resolve(out);
  if (existsSync(target)) {
    throw new SparseVilaError(
      'ERR_OUTPUT_EXISTS',
      `Expected a new folder as output, but ${target} exists. Give another name or remove it.`,
    );
  }
  const folder = join(dirname(target), `${basename(target)}.partial`);
  mkdirSync(folder, { recursive: true });
  const unlock = lock(join(folder, 'lock'));
  const record = join(folder, RECORD);
  const tree = join(folder, 'checkpoint');
  try {
    const finished = readRecord(record, key, folder);
    return {
      folder,
      finished,
      finish: (step, result) => {
        finished.set(step, result);
        writeRecord(record, { key, finished: Object.fromEntries(finished) });
      },
      install: async (build) => {
        await rm(tree, { recursive: true, force: true });
        mkdirSync(tree);
        try {
          await build(tree);
          await rename(tree, target);
        } catch (error) {
          await rm(tree, { recursive: true, force: true });
          throw diskError(error, tree);
        }
        await rm(folder, { recursive: true, force: true });
      },
      close: () => {
        unlock();
        // Nothing to continue: nothing to leave.
        if (finished.size === 0) rmSync(folder, { recursive: true, force: true });
      },
    };
  } catch (error) {
    unlock();
    throw error;
  }
}

function readRecord(file: string, key: string, folder: string): Map<string, unknown> {
  if (!existsSync(file)) {
    writeRecord(file, { key, finished: {} });
    return new Map();
  }
  const { key: other, finished } = readJson(file);
  const steps = Object.entries(finished ?? {});
  if (other === key) return new Map(steps);
  if (steps.length === 0) {
    writeRecord(file, { key, finished: {} });
    return new Map();
  }
  throw new SparseVilaError(
    'ERR_RESUME_MISMATCH',
    `${folder}: an unfinished run with other options, another calibration set or another model lies here. ` +
      'Repeat its command to continue it, give another --out, or remove that folder to start over.',
  );
}

function writeRecord(file: string, content: unknown): void {
  try {
    writeFileSync(`${file}.new`, JSON.stringify(content));
    renameSync(`${file}.new`, file);
  } catch (error) {
    throw diskError(error, file);
  }
}

/** Takes the lock file; one whose process is gone counts as free. Returns what gives it back. */
function lock(file: string): () => void {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      writeFileSync(file, String(process.pid), { flag: 'wx' });
      return () => rmSync(file, { force: true });
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw diskError(error, file);
      const owner = Number(readFileSync(file, 'utf8'));
      if (isAlive(owner)) {
        throw new SparseVilaError(
          'ERR_BUSY',
          `${dirname(file)}: process ${owner} is working here. Wait for it, or give another --out.`,
        );
      }
      rmSync(file, { force: true });
    }
  }
  throw new SparseVilaError('ERR_BUSY', `${dirname(file)}: another process has just begun to work here.`);
}

function isAlive(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}
