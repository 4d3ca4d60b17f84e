// Writes a file, or installs a folder, all at once: the work happens in a temporary sibling, the rename at the end is the only
// step that others can see. So a target that exists is complete, whoever was killed when. And the one place that puts errors of
// writing (a full disk, a read-only folder) in words.

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
 * `build` must create its path (file or folder); when it throws, what it left is removed.
 * Returns true when this call installed it.
 */
export async function installOnce(target: string, build: (temporary: string) => Promise<void>): Promise<boolean> {
  if (existsSync(target)) return false;
  const temporary = temporaryName(target);
  try {
    makeFolder(dirname(target));
    await build(temporary);
    // rename() silently replaces a file; for a file that is right too, since equal names mean equal content.
    await rename(temporary, target);
    return true;
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    // Whatever went wrong here (a lost race for the rename, a source that the winner has cleared away):
    // a target that exists is complete.
    if (existsSync(target)) return false;
    throw writeError(error, target);
  }
}

/** Removes `path` in one step as far as others can see, so that nobody finds half of it. */
export async function removeAtOnce(path: string): Promise<void> {
  const temporary = temporaryName(path);
  const moved = await rename(path, temporary).then(
    () => true,
    () => false,
  );
  // What a program is still writing to may be removed by a later `removeStale`.
  if (moved) await rm(temporary, { recursive: true, force: true, maxRetries: 3 }).catch(() => undefined);
}

/**
 * Writes `file` aside, brings it to the disk and gives it its name, making its folder. What was there is replaced; a link is kept,
 * and what it points to is replaced.
 * @throws SparseVilaError `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE` (also where a folder, a FIFO or a device lies)
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

/** Brings the names in a folder to the disk. Some file systems cannot; there it does nothing. */
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

/** The regular file that `file` names, through links. */
function replaceable(file: string): string {
  if (!isPresent(file)) return file;
  const stat = statSync(file);
  if (stat.isFile()) return realpathSync(file);
  throw unwritable(file, `it is ${kindOf(stat)}`);
}

/** A fresh name beside `target`. */
export function temporaryName(target: string): string {
  const name = basename(target);
  // Names may have 255 bytes.
  const start = Buffer.byteLength(name) > 200 ? name.slice(0, 50) : name;
  return join(dirname(target), `${start}.tmp-${randomBytes(8).toString('hex')}`);
}

/** Whether a name is one of `temporaryName`: what a killed process leaves. */
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

/** Calls on files: the error of a program that cannot be started, or of a connection, is not one of writing. */
const FILE_CALLS =
  /^(open|access|write|fsync|fdatasync|ftruncate|mkdir|mkdtemp|rename|copyfile|sendfile|link|symlink|unlink|rmdir|scandir|l?stat|statfs|u?time|f?chmod|rm|close)/;

/**
 * The error of writing `file` in words: `ERR_DISK_FULL` or `ERR_OUTPUT_UNWRITABLE`. Errors that do not come from the system (ours,
 * an abort) stay as they are.
 */
export function writeError(error: unknown, file: string): unknown {
  const code = codeOf(error) ?? '';
  const isSystem = typeof error === 'object' && error !== null && 'syscall' in error;
  if (!isSystem || !FILE_CALLS.test(String(error.syscall))) return error;
  const full = FULL[code];
  if (full === undefined) return unwritable(file, UNWRITABLE[code] ?? messageOf(error), error);
  return diskFull(file, full, error);
}

/** The error of a program that ended because the disk is full, as its last lines or the disk of `folder` say; else undefined. */
export function fullDiskIn(lines: readonly string[], folder: string): SparseVilaError | undefined {
  const said = lines.some((line) => /no space left on device|disk quota exceeded|\[Errno 28\]|ENOSPC/i.test(line));
  return said || isFull(folder) ? diskFull(folder, 'no space is left on this disk') : undefined;
}

/** Whether less than 64 KiB are left: CMake's own messages do not say it. */
function isFull(folder: string): boolean {
  try {
    const { blocks, bavail, bsize } = statfsSync(folder);
    return blocks > 0 && bavail * bsize < 2 ** 16;
  } catch {
    return false;
  }
}

function diskFull(file: string, reason: string, cause?: unknown): SparseVilaError {
  const message = `${shownPath(file)}: ${reason}. Free some, and run the same command again; what is finished is kept.`;
  return new SparseVilaError('ERR_DISK_FULL', message, { cause });
}

function unwritable(file: string, reason: string, cause?: unknown): SparseVilaError {
  const message = `${shownPath(file)}: cannot be written (${reason}). Give another name, or make it writable.`;
  return new SparseVilaError('ERR_OUTPUT_UNWRITABLE', message, { cause });
}

/**
 * Makes sure that a folder that exists has room for `bytes` more.
 * @throws SparseVilaError `ERR_DISK_FULL` with both numbers; `advice` ends its message
 */
export async function requireSpace(folder: string, bytes: number, advice = 'Free some.'): Promise<void> {
  const disk = await statfs(folder).catch(() => undefined);
  if (disk === undefined || disk.blocks === 0) return; // file systems that do not count
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

/** What may go, and after how long without use: temporaries of killed processes, and what old sources compiled to. */
const STALE: readonly (readonly [name: RegExp, afterMs: number])[] = [
  [TEMPORARY, DAY_MS],
  [/^(native|gpu|standin|build)-[0-9a-f-]+(\.log|\.lock|\.failed)?$/, 30 * DAY_MS],
];

/** Removes what is stale in `folder`, and returns the names. */
export async function removeStale(folder: string, now: number = Date.now()): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    const [, afterMs] = STALE.find(([pattern]) => pattern.test(name)) ?? [];
    const path = join(folder, name);
    const used = afterMs === undefined ? undefined : await lastUsed(path);
    if (afterMs === undefined || used === undefined || now - used < afterMs) continue;
    // In a cache that others share or that is read-only it may be theirs to remove.
    const isGone = await rm(path, { recursive: true, force: true }).then(
      () => true,
      () => false,
    );
    if (isGone) removed.push(name);
  }
  return removed;
}

/** Notes that `path` is in use, so that `removeStale` keeps it. */
export async function markUsed(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => undefined); // a cache that is read-only is kept by others
}

async function lastUsed(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch {
    return undefined; // its owner has just renamed or removed it
  }
}
