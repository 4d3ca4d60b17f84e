// Writes a file or installs a folder atomically: the work happens in a temporary sibling, and the final rename is the only step that others
// can see. A target that exists is therefore complete, whichever process was killed. Also turns errors of writing (a full disk, a read-only
// folder) into messages.

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { readdir, rename, rm, stat, statfs, utimes } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { codeOf, messageOf, SparseVilaError } from '../errors';
import { isPresent, kindOf, makeFolder, shownPath } from '../files';

const TEMPORARY = /\.tmp-[0-9a-f]{16}$/;

/**
 * Makes `target` by calling `build` with a fresh path beside it and renaming the result.
 * Does nothing when `target` exists. If another process installs `target` meanwhile, ours is discarded.
 * `build` must create its path (file or folder); if it throws, its files are removed.
 * Returns true when this call installed it.
 */
export async function installOnce(target: string, build: (temporary: string) => Promise<void>): Promise<boolean> {
  if (existsSync(target)) return false;
  const temporary = temporaryName(target);
  try {
    makeFolder(dirname(target));
    await build(temporary);
    // rename() replaces a file silently, which is correct too, because equal names mean equal content.
    await rename(temporary, target);
    return true;
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    // Whatever went wrong (a lost race for the rename, a source that the winner has removed): an existing target is complete.
    if (existsSync(target)) return false;
    throw writeError(error, target);
  }
}

/** Removes `path` in one visible step, so that nobody finds part of it. */
export async function removeAtOnce(path: string): Promise<void> {
  const temporary = temporaryName(path);
  const moved = await rename(path, temporary).then(
    () => true,
    () => false,
  );
  // A later `removeStale` removes what a program was still writing to.
  if (moved) await rm(temporary, { recursive: true, force: true, maxRetries: 3 }).catch(() => undefined);
}

/**
 * Writes `file` to a temporary, flushes it to disk and renames it, making its folder. An existing file is replaced; of a link, the file that it
 * points to is replaced.
 * @throws SparseVilaError `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE` (also for a folder, a FIFO or a device at the path)
 */
export function replaceFile(file: string, content: string | Uint8Array, mode = 0o666): void {
  let temporary: string | undefined;
  try {
    makeFolder(dirname(file));
    const target = replaceable(file);
    temporary = temporaryName(target);
    const fd = openSync(temporary, 'wx', mode);
    try {
      writeFileSync(fd, content);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, target);
  } catch (error) {
    if (temporary !== undefined) rmSync(temporary, { force: true });
    throw writeError(error, file);
  }
}

/** Flushes the entries of a folder to disk. Does nothing on file systems that cannot. */
export function syncFolder(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } catch {
    // EINVAL: a network file system
  } finally {
    closeSync(fd);
  }
}

/** The regular file that `file` names, through links. @throws SparseVilaError `ERR_OUTPUT_UNWRITABLE` for anything else at the path */
export function replaceable(file: string): string {
  try {
    if (!isPresent(file)) return file;
    const stat = statSync(file);
    if (stat.isFile()) return realpathSync(file);
    throw unwritable(file, `it is ${kindOf(stat)}`);
  } catch (error) {
    throw writeError(error, file);
  }
}

/** A fresh name beside `target`. */
export function temporaryName(target: string): string {
  const name = basename(target);
  // Names may have 255 bytes.
  const start = Buffer.byteLength(name) > 200 ? name.slice(0, 50) : name;
  return join(dirname(target), `${start}.tmp-${randomBytes(8).toString('hex')}`);
}

/** Whether a name was made by `temporaryName`, as left by a killed process. */
export const isTemporary = (name: string): boolean => TEMPORARY.test(name);

const FULL: Readonly<Record<string, string>> = {
  ENOSPC: 'no space is left on this disk',
  EDQUOT: 'the quota of this disk is used up',
  EFBIG: 'the file is larger than the file system or `ulimit -f` allows',
};
const UNWRITABLE: Readonly<Record<string, string>> = {
  EROFS: 'the file system is read-only',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'it is a directory',
  ENOTDIR: 'a part of the path is not a directory',
  EEXIST: 'a part of the path is not a directory',
  ENOTEMPTY: 'it is a directory with files in it',
  ENOENT: 'a part of the path is not there, or is a link to nothing',
  ENAMETOOLONG: 'the name is too long',
  ELOOP: 'a link in the path leads back to itself',
  EMFILE: 'too many open files: raise `ulimit -n`',
  ENFILE: 'too many open files on this machine',
  EIO: 'the disk reports an input/output error',
};

/** System calls on files: other calls, such as starting a program or connecting, do not mean an error of writing. */
const FILE_CALLS =
  /^(open|access|write|fsync|fdatasync|ftruncate|mkdir|mkdtemp|rename|copyfile|sendfile|link|symlink|unlink|rmdir|scandir|l?stat|statfs|u?time|f?chmod|rm|close)/;

/**
 * The error for a failure to write `file`: `ERR_DISK_FULL` or `ERR_OUTPUT_UNWRITABLE`. Errors that do not come from the system (ours, an
 * abort) stay unchanged.
 */
export function writeError(error: unknown, file: string): unknown {
  const code = codeOf(error) ?? '';
  const isSystem = typeof error === 'object' && error !== null && 'syscall' in error;
  if (code === 'ERR_INVALID_ARG_VALUE') return unwritable(file, 'the name contains a NUL character', error);
  if (!isSystem || !FILE_CALLS.test(String(error.syscall))) return error;
  const full = FULL[code];
  if (full === undefined) return unwritable(file, UNWRITABLE[code] ?? messageOf(error), error);
  return diskFull(file, full, error);
}

/** The error of a program that ended because the disk is full, judged by its last lines or the disk of `folder`; else undefined. */
export function fullDiskIn(lines: readonly string[], folder: string): SparseVilaError | undefined {
  const isReported = lines.some((line) =>
    /no space left on device|disk quota exceeded|\[Errno 28\]|ENOSPC/i.test(line),
  );
  return isReported || isFull(folder) ? diskFull(folder, 'no space is left on this disk') : undefined;
}

/** Whether less than 64 KiB are free: CMake's own messages do not report a full disk. */
function isFull(folder: string): boolean {
  try {
    const { blocks, bavail, bsize } = statfsSync(folder);
    return blocks > 0 && bavail * bsize < 2 ** 16;
  } catch {
    return false;
  }
}

function diskFull(file: string, reason: string, cause?: unknown): SparseVilaError {
  const message = `${shownPath(file)}: ${reason}. Free some, and run the same command again: finished files are kept.`;
  return new SparseVilaError('ERR_DISK_FULL', message, { cause });
}

function unwritable(file: string, reason: string, cause?: unknown): SparseVilaError {
  const message = `${shownPath(file)}: cannot be written (${reason}). Give another name, or make it writable.`;
  return new SparseVilaError('ERR_OUTPUT_UNWRITABLE', message, { cause });
}

/**
 * Checks that an existing folder has room for `bytes` more.
 * @throws SparseVilaError `ERR_DISK_FULL` with both numbers; `advice` ends its message
 */
export async function requireSpace(folder: string, bytes: number, advice = 'Free some.'): Promise<void> {
  const disk = await statfs(folder).catch(() => undefined);
  if (disk === undefined || disk.blocks === 0) return; // a file system that does not report its size
  const free = disk.bavail * disk.bsize;
  if (free >= bytes) return;
  const gb = (count: number): string =>
    count < 1e8 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(1)} GB`;
  throw new SparseVilaError(
    'ERR_DISK_FULL',
    `${shownPath(folder)}: expected ${gb(bytes)} free on this disk, found ${gb(free)}. ${advice}`,
  );
}

const DAY_MS = 24 * 60 * 60 * 1000;

/** What may be removed, and after how long without use: temporaries of killed processes, and builds of old sources. */
const STALE: readonly (readonly [name: RegExp, afterMs: number])[] = [
  [TEMPORARY, DAY_MS],
  [/^(native|gpu|standin|build)-[0-9a-f-]+(\.log|\.lock|\.failed)?$/, 30 * DAY_MS],
];

/** Removes stale entries of `folder`, and returns their names. */
export async function removeStale(folder: string, now: number = Date.now()): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    const [, afterMs] = STALE.find(([pattern]) => pattern.test(name)) ?? [];
    const path = join(folder, name);
    const used = afterMs === undefined ? undefined : await lastUsed(path);
    if (afterMs === undefined || used === undefined || now - used < afterMs) continue;
    // In a shared or read-only cache only others may be able to remove it.
    const isGone = await rm(path, { recursive: true, force: true }).then(
      () => true,
      () => false,
    );
    if (isGone) removed.push(name);
  }
  return removed;
}

/** Marks `path` as in use, so that `removeStale` keeps it. */
export async function markUsed(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => undefined); // A read-only cache is maintained by others.
}

async function lastUsed(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch {
    return undefined; // its owner has just renamed or removed it
  }
}
