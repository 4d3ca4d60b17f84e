// Downloads the required files of a commit that are not in the cache: small files first, then the weights that they name, several files at a
// time, by one process at a time.

import { lstatSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { onAbort } from '../abort';
import { codeOf } from '../errors';
import { makeFolder } from '../files';
import { requireSpace, writeError } from '../runtime/atomic';
import { type Lock, takeLock } from '../runtime/lock';
import type { OnProgress } from '../runtime/progress';
import { fetchBlob, partialOf } from './blob';
import { blobFile, isFileOf, linkBlob, lockFolder, makeInside, snapshotFolder, writeListing, writeRef } from './cache';
import { hubError, shownName } from './errors';
import { DEFAULT_REVISION } from './names';
import { fileUrl, type RemoteFile } from './repository';
import type { Call } from './request';
import type { Needs } from './snapshot';

/** A commit of a model, and its folder. */
export interface Commit {
  /** `models--owner--name` in the cache. */
  readonly repository: string;
  readonly commit: string;
  readonly files: readonly RemoteFile[];
}

const PARALLEL = 4;
const POLL_MS = 250;
/** A lock holder without progress for this long is reported. */
const PATIENCE_MS = 120_000;
/** Bytes that are left free on the disk. */
const SPARE_BYTES = 32 * 2 ** 20;

/**
 * Completes the snapshot of a commit, and returns the number of downloaded bytes.
 * @throws SparseVilaError as `snapshot`; `signal.reason`
 */
export async function download(
  call: Call,
  commit: Commit,
  needs: Needs,
  onProgress: OnProgress | undefined,
): Promise<number> {
  const { repository, commit: id, files } = commit;
  const lock = await waitForLock(call, commit, needs, onProgress);
  try {
    makeRepository(repository);
    const paths = files.map(({ path }) => path);
    const configs = pick(call, files, needs.configs(paths));
    // Without a bar, because the total size is known only afterwards.
    const small = await fetchFiles(call, commit, configs, undefined);
    const weights = pick(call, files, needs.weights(snapshotFolder(repository, id), paths));
    const large = await fetchFiles(call, commit, [...configs, ...weights], onProgress);
    writeListing(repository, id, files);
    writeRef(repository, call.subject.revision ?? DEFAULT_REVISION, id);
    return small + large;
  } finally {
    lock.release();
  }
}

function makeRepository(repository: string): void {
  try {
    makeFolder(repository);
  } catch (error) {
    throw writeError(error, repository);
  }
  makeInside(repository, `${repository}/blobs`);
}

/** The files at `paths`. @throws SparseVilaError `ERR_HUB_NOT_FOUND` for a shard that an index names and the model does not have */
export function pick({ subject }: Call, files: readonly RemoteFile[], paths: readonly string[]): RemoteFile[] {
  const known = new Map(files.map((file) => [file.path, file]));
  return paths.map((path) => {
    const file = known.get(path);
    if (file !== undefined) return file;
    const shown = JSON.stringify(path.slice(0, 200));
    throw hubError('ERR_HUB_NOT_FOUND', `${subject.name}: its index of weights names ${shown}, which the model lacks.`);
  });
}

/** Downloads the missing ones of `files`, and returns their number of bytes. */
async function fetchFiles(
  call: Call,
  commit: Commit,
  files: readonly RemoteFile[],
  onProgress: OnProgress | undefined,
): Promise<number> {
  const { repository, commit: id } = commit;
  const missing = files.filter((file) => !isThere(commit, file));
  if (missing.length === 0) return 0;
  const blobs = new Map(missing.map((file) => [file.hash, file]));
  for (const file of missing) if (isFileOf(blobFile(repository, file.hash), file.size)) blobs.delete(file.hash);
  const left = [...blobs.values()].reduce((sum, file) => sum + file.size - partialBytes(repository, file), 0);
  const advice = 'Free some, or set HF_HUB_CACHE to a folder on another disk.';
  await requireSpace(repository, left + SPARE_BYTES, `${shownName(call.subject)} needs it. ${advice}`);
  const total = files.reduce((sum, { size }) => sum + size, 0);
  let done = total - [...blobs.values()].reduce((sum, { size }) => sum + size, 0);
  const report = (count: number): void => {
    done += count;
    onProgress?.({ step: stepOf(call), done, total, unit: 'B' });
  };
  await inParallel(call, [...blobs.values()], (file, inner) =>
    fetchBlob(inner, fileUrl(call, id, file.path), file, blobFile(repository, file.hash), report),
  );
  for (const { path, hash } of missing) linkBlob(repository, id, path, hash);
  return left;
}

const stepOf = ({ subject }: Call): string => `download ${shownName(subject)}`;

const isThere = ({ repository, commit }: Commit, { path, size }: RemoteFile): boolean =>
  isFileOf(`${snapshotFolder(repository, commit)}/${path}`, size);

/** Bytes of a file from an earlier attempt. */
function partialBytes(repository: string, { hash, size }: RemoteFile): number {
  const found = lstatSync(partialOf(blobFile(repository, hash)), { throwIfNoEntry: false })?.size ?? 0;
  return found <= size ? found : 0;
}

/** Calls `work` for each file, a few at a time. The first error stops the others. */
async function inParallel(
  call: Call,
  files: readonly RemoteFile[],
  work: (file: RemoteFile, call: Call) => Promise<void>,
): Promise<void> {
  call.signal?.throwIfAborted();
  const group = new AbortController();
  const { signal } = call;
  const forget = signal === undefined ? undefined : onAbort(signal, () => group.abort(signal.reason));
  const queue = [...files];
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      try {
        await work(file, { ...call, signal: group.signal });
      } catch (error) {
        queue.length = 0;
        group.abort(error);
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  forget?.();
  signal?.throwIfAborted();
  group.signal.throwIfAborted();
}

/** The lock of the model. While another process holds it, that process's progress is reported. */
async function waitForLock(
  call: Call,
  commit: Commit,
  needs: Needs,
  onProgress: OnProgress | undefined,
): Promise<Lock> {
  const { settings, subject, signal } = call;
  for (let most = -1, since = Date.now(); ; ) {
    try {
      return takeLock(lockFolder(settings.cache, subject.name));
    } catch (error) {
      if (codeOf(error) !== 'ERR_BUSY') throw error;
      const seen = bytesThere(commit, needs);
      if (seen.total > 0) onProgress?.({ step: stepOf(call), ...seen, unit: 'B' });
      if (seen.done > most) [most, since] = [seen.done, Date.now()];
      else if (Date.now() - since > PATIENCE_MS) throw error;
    }
    await sleep(POLL_MS, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
    signal?.throwIfAborted();
  }
}

/** Numbers of bytes present and required, as far as the small files tell. */
function bytesThere(commit: Commit, needs: Needs): { readonly done: number; readonly total: number } {
  const { repository, commit: id, files } = commit;
  const paths = files.map(({ path }) => path);
  let wanted = new Set(needs.configs(paths));
  let isKnown = false;
  try {
    wanted = new Set([...wanted, ...needs.weights(snapshotFolder(repository, id), paths)]);
    isKnown = true;
  } catch {
    // Some small files are missing.
  }
  const needed = files.filter(({ path }) => wanted.has(path));
  const sum = (of: (file: RemoteFile) => number): number => needed.reduce((all, file) => all + of(file), 0);
  const done = sum((file) => {
    const isBlob = isThere(commit, file) || isFileOf(blobFile(repository, file.hash), file.size);
    return isBlob ? file.size : partialBytes(repository, file);
  });
  return { done, total: isKnown ? sum(({ size }) => size) : 0 };
}
