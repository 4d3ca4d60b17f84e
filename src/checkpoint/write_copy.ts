// Writes a copy of a checkpoint that differs in some tensors and configs, shard by shard into a run's work folder, and gives it the final name.
// After an interruption the next run continues after the complete shards. Does not know what the tensors are.

import { lstatSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { codeOf, SparseVilaError } from '../errors';
import type { Json } from '../json';
import { requireSpace, writeError } from '../runtime/atomic';
import type { OnProgress } from '../runtime/progress';
import { type CopyOptions, copyTree } from './copy_tree';
import { byteLength, writeCheckpoint, writeJson } from './export';
import { openCheckpoint, type TensorEntries } from './safetensors';
import type { TensorSource } from './safetensors_writer';
import type { WorkFolder } from './work_folder';

/** The differences between a copy and its original, and the files that are not copied. Paths and folders are relative to the original. */
export interface Changes extends CopyOptions {
  readonly weights: ReadonlyMap<string, readonly TensorSource[]>;
  readonly configs: ReadonlyMap<string, Json>;
}

/** A function that checks the written weights, by folder, and reports the number of bytes that it has checked. */
export type Verify = (written: ReadonlyMap<string, TensorEntries>, onBytes: (bytes: number) => void) => Promise<void>;

export interface CopyRun {
  readonly work: WorkFolder;
  /** The key of the run: files of a run with another key are not continued. */
  readonly key: string;
  /** The name of the step in progress reports. */
  readonly step: string;
  readonly onProgress: OnProgress;
}

/**
 * Writes a copy of the folder `model` and installs it.
 * @throws SparseVilaError as `copyTree`, `writeCheckpoint` and `WorkFolder.install`; errors of `verify`
 */
export async function installCopy(
  model: string,
  changes: Changes,
  { work, key, step, onProgress }: CopyRun,
  verify?: Verify,
): Promise<void> {
  const total = byteLength([...changes.weights.values()].flat()) * (verify === undefined ? 1 : 2);
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    onProgress({ step, done, total, unit: 'B' });
  };
  const made = join(work.folder, `made-${key.slice(0, 16)}`);
  try {
    const written = await writeCopy(model, made, changes, onBytes);
    await verify?.(written, onBytes);
    await work.install(made);
  } catch (error) {
    // Partial output is kept after an abort or a full disk, so that the run can continue; it is removed after other errors.
    const isFull = ['ERR_DISK_FULL', 'ERR_OUTPUT_UNWRITABLE'].includes(codeOf(error) ?? '');
    if (isFull || !(error instanceof SparseVilaError)) work.finish('begun', true);
    else await rm(made, { recursive: true, force: true });
    throw writeError(error, work.folder);
  }
}

async function writeCopy(
  model: string,
  made: string,
  { weights, configs, ...copy }: Changes,
  onBytes: (bytes: number) => void,
): Promise<ReadonlyMap<string, TensorEntries>> {
  await mkdir(made, { recursive: true });
  const finished = await keepShards(made, [...weights.keys()]);
  const advice = 'Free some, and run the same command again: finished files are kept.';
  await requireSpace(made, byteLength([...weights.values()].flat()) - finished, advice);
  await copyTree(model, made, copy);
  const written = new Map<string, TensorEntries>();
  for (const folder of weights.keys()) await mkdir(join(made, folder), { recursive: true });
  for (const [path, json] of configs) writeJson(join(made, path), json);
  for (const [folder, tensors] of weights) {
    await writeCheckpoint(join(made, folder), tensors, { onBytes, signal: copy.signal });
    written.set(folder, openCheckpoint(join(made, folder)));
  }
  return written;
}

/** Removes the files of an interrupted run except complete shards in the folders that are written; returns their bytes. */
async function keepShards(made: string, folders: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(made, { recursive: true })) {
    const path = join(made, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined || stat.isDirectory()) continue;
    const isWritten = folders.some((folder) => join(folder, basename(name)) === name);
    if (stat.isFile() && isWritten && name.endsWith('.safetensors')) bytes += stat.size;
    else await rm(path);
  }
  return bytes;
}
