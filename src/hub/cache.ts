// The cache of Hugging Face's Python tools: `models--owner--name/{blobs,refs,snapshots}`, where `snapshots/<commit>/<path>` links to
// `blobs/<hash>` and `refs/<revision>` holds a commit. Source: huggingface_hub 2.4 `file_download.py`, `_tree_cache.py`.

import { lstatSync, readlinkSync, realpathSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { SparseVilaError } from '../errors';
import { filesBelow, insideFolder, isFolder, isPresent, makeFolder, readTextFile, shownPath } from '../files';
import { type Json, readJson } from '../json';
import { replaceFile, temporaryName, writeError } from '../runtime/atomic';
import { isCommit } from './names';
import { type RemoteFile, remoteFile } from './repository';

/** The folder of a model in the cache. */
export const repositoryFolder = (cache: string, name: string): string =>
  join(cache, `models--${name.replaceAll('/', '--')}`);

/** The folder of the lock under which a model's files are written. huggingface_hub has its own locks beside it. */
export const lockFolder = (cache: string, name: string): string =>
  join(cache, '.locks', `models--${name.replaceAll('/', '--')}`, 'sparsevila');

export const blobFile = (repository: string, hash: string): string => join(repository, 'blobs', hash);

export const snapshotFolder = (repository: string, commit: string): string => join(repository, 'snapshots', commit);

/** The commit of a revision at its last download. */
export function readRef(repository: string, revision: string): string | undefined {
  try {
    const commit = readTextFile(refFile(repository, revision), { what: 'a commit', limit: 1000 }).trim();
    return isCommit(commit) ? commit : undefined;
  } catch {
    return undefined; // There is none, or it is no ref.
  }
}

/** @throws SparseVilaError `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE` */
export function writeRef(repository: string, revision: string, commit: string): void {
  if (revision === commit || readRef(repository, revision) === commit) return;
  const file = refFile(repository, revision);
  writeInside(repository, file, commit);
}

export const refFile = (repository: string, revision: string): string =>
  insideFolder(join(repository, 'refs'), revision, { what: 'the revision' });

/** Refs by the commit that they hold. */
export function refsOf(repository: string): Map<string, string[]> {
  const refs = new Map<string, string[]>();
  const folder = join(repository, 'refs');
  for (const revision of isFolder(folder) ? filesBelow(folder) : []) {
    const commit = readRef(repository, revision);
    if (commit !== undefined) refs.set(commit, [...(refs.get(commit) ?? []), revision]);
  }
  return refs;
}

/** The Hub's listing of a commit, stored by this package or by huggingface_hub (`trees/<commit>.json`); undefined if there is none. */
export function readListing(repository: string, commit: string): RemoteFile[] | undefined {
  for (const file of [listingFile(repository, commit), join(repository, 'trees', `${commit}.json`)]) {
    const files = isPresent(file) ? parseListing(file) : undefined;
    if (files !== undefined) return files;
  }
  return undefined;
}

/** A separate name: huggingface_hub takes a commit with a known listing as complete only if all its files exist. */
const listingFile = (repository: string, commit: string): string =>
  join(repository, 'trees', `${commit}.sparsevila.json`);

function parseListing(file: string): RemoteFile[] | undefined {
  try {
    const { format_version, files } = readJson(file);
    if (format_version !== 1 || typeof files !== 'object' || files === null) return undefined;
    return Object.entries(files as Record<string, Json>).flatMap(([path, { size, blob_id, lfs_sha256, lfs_size }]) => {
      const lfs = lfs_sha256 === undefined ? undefined : { oid: lfs_sha256, size: lfs_size };
      return remoteFile(file, { type: 'file', path, size, oid: blob_id, ...(lfs && { lfs }) }) ?? [];
    });
  } catch {
    return undefined; // Written by another version, or damaged: the Hub is asked again.
  }
}

/** @throws SparseVilaError `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE` */
export function writeListing(repository: string, commit: string, files: readonly RemoteFile[]): void {
  const entries = files.map(({ path, size, hash, gitHash }) => {
    const lfs = hash.length === 64 ? { lfs_sha256: hash, lfs_size: size } : {};
    return [path, { size, blob_id: gitHash, ...lfs }] as const;
  });
  const json = { format_version: 1, files: Object.fromEntries(entries) };
  writeInside(repository, listingFile(repository, commit), `${JSON.stringify(json, null, 1)}\n`);
}

/** Whether `path` is a regular file, through links, of `size` bytes if that is known. */
export function isFileOf(path: string, size: number | undefined): boolean {
  try {
    const stat = statSync(path);
    return stat.isFile() && (size === undefined || stat.size === size);
  } catch {
    return false;
  }
}

/**
 * Makes a folder below `repository`, and checks that no link leads it elsewhere.
 * @throws SparseVilaError `ERR_PATH_OUTSIDE`, `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`
 */
export function makeInside(repository: string, folder: string): void {
  try {
    makeFolder(folder);
  } catch (error) {
    throw writeError(error, folder);
  }
  if (`${realpathSync(folder)}${sep}`.startsWith(`${realpathSync(repository)}${sep}`)) return;
  throw new SparseVilaError(
    'ERR_PATH_OUTSIDE',
    `${shownPath(folder)}: expected a folder inside ${shownPath(repository)}, found a link that leads out of it. Remove the link.`,
  );
}

/** Replaces `file`, which is below `repository`; a link at that path is replaced itself, and not its target. */
function writeInside(repository: string, file: string, content: string): void {
  makeInside(repository, dirname(file));
  if (lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink()) rmSync(file);
  replaceFile(file, content);
}

/** Gives a blob its name in a snapshot: a relative link, created atomically. */
export function linkBlob(repository: string, commit: string, path: string, hash: string): void {
  const pointer = insideFolder(snapshotFolder(repository, commit), path, { what: 'a file of the model' });
  makeInside(repository, dirname(pointer));
  const target = relative(dirname(pointer), blobFile(repository, hash));
  if (lstatSync(pointer, { throwIfNoEntry: false })?.isSymbolicLink() && readlinkSync(pointer) === target) return;
  const temporary = temporaryName(pointer);
  try {
    symlinkSync(target, temporary);
    renameSync(temporary, pointer);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw writeError(error, pointer);
  }
}
