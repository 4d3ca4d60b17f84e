// Lists and removes models in the cache.

import { lstatSync, readdirSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { SparseVilaError } from '../errors';
import { filesBelow, isFolder, isPresent, shownPath } from '../files';
import { isTemporary, removeAtOnce, writeError } from '../runtime/atomic';
import { takeLock } from '../runtime/lock';
import { lockFolder, readRef, refFile, refsOf, repositoryFolder, snapshotFolder } from './cache';
import { hubName, isCommit } from './names';
import type { HubSettings } from './settings';
import { type Needs, snapshotState } from './snapshot';

export interface StoredRevision {
  readonly commit: string;
  /** Branches and tags that referred to this commit when they were downloaded. */
  readonly revisions: readonly string[];
  /** The folder that `load` reads. */
  readonly folder: string;
  readonly bytes: number;
  /** whole: it loads without the network; partial: files are missing; refused: this package cannot load it. */
  readonly state: 'whole' | 'partial' | 'refused';
}

export interface StoredModel {
  /** `owner/name`. */
  readonly name: string;
  /** Bytes on disk, including interrupted downloads; files that revisions share count once. */
  readonly bytes: number;
  readonly revisions: readonly StoredRevision[];
}

export interface Removed {
  readonly name: string;
  readonly commits: readonly string[];
  /** Number of bytes that were freed. */
  readonly bytes: number;
}

/** The models in the cache by name, downloaded by any tool. */
export function storedModels({ cache }: HubSettings, needs: Needs): StoredModel[] {
  const folders = isFolder(cache) ? readdirSync(cache).sort() : [];
  return folders.flatMap((folder) => {
    const name = folder.startsWith('models--') ? folder.slice('models--'.length).replaceAll('--', '/') : '';
    const repository = join(cache, folder);
    if (hubName(name)?.name !== name || !isFolder(repository)) return [];
    const refs = refsOf(repository);
    const revisions = commitsOf(repository).map((commit): StoredRevision => {
      const snapshot = snapshotFolder(repository, commit);
      const { isWhole, refused } = snapshotState(repository, commit, needs);
      const state = isWhole ? 'whole' : refused === undefined ? 'partial' : 'refused';
      const bytes = bytesOf(blobsOf(repository, commit));
      return { commit, revisions: refs.get(commit) ?? [], folder: snapshot, bytes, state };
    });
    return [{ name, bytes: bytesOf(allFiles(repository)), revisions }];
  });
}

/**
 * Removes a model from the cache, or one revision of it with the files that no other revision has.
 * @throws SparseVilaError `ERR_MODEL_MISSING`; `ERR_BUSY` while it is downloaded; `ERR_OUTPUT_UNWRITABLE`
 */
export async function removeStored(
  { cache }: HubSettings,
  name: string,
  revision: string | undefined,
): Promise<Removed> {
  const repository = repositoryFolder(cache, name);
  if (!isPresent(repository)) throw notStored(cache, name);
  const lock = takeLock(lockFolder(cache, name));
  try {
    const commits = commitsOf(repository);
    const commit = revision === undefined || isCommit(revision) ? revision : readRef(repository, revision);
    if (revision !== undefined && (commit === undefined || !commits.includes(commit)))
      throw notStored(cache, `${name}@${revision}`);
    const isLast = commit === undefined || commits.length === 1;
    const bytes = isLast ? bytesOf(allFiles(repository)) : await removeCommit(repository, commit, commits);
    if (isLast) await removeFolder(repository);
    return { name, commits: commit === undefined ? commits : [commit], bytes };
  } finally {
    lock.release();
  }
}

async function removeCommit(repository: string, commit: string, commits: readonly string[]): Promise<number> {
  const kept = new Set(commits.filter((other) => other !== commit).flatMap((other) => blobsOf(repository, other)));
  const freed = blobsOf(repository, commit).filter((file) => !kept.has(file));
  const bytes = bytesOf(freed);
  try {
    // The references to the revision are removed first.
    for (const revision of refsOf(repository).get(commit) ?? []) rmSync(refFile(repository, revision));
    await removeFolder(snapshotFolder(repository, commit));
    const blobs = join(repository, 'blobs', '/');
    for (const file of freed) if (file.startsWith(blobs)) rmSync(file, { force: true });
    for (const name of [`${commit}.json`, `${commit}.sparsevila.json`])
      rmSync(join(repository, 'trees', name), { force: true });
  } catch (error) {
    throw writeError(error, repository);
  }
  return bytes;
}

async function removeFolder(folder: string): Promise<void> {
  await removeAtOnce(folder);
  if (!isPresent(folder)) return;
  const message = `${shownPath(folder)}: cannot be removed. Check its permissions.`;
  throw new SparseVilaError('ERR_OUTPUT_UNWRITABLE', message);
}

function commitsOf(repository: string): string[] {
  const folder = join(repository, 'snapshots');
  return isFolder(folder) ? readdirSync(folder).filter((name) => !isTemporary(name) && isCommit(name)) : [];
}

/** The files to which the names in a snapshot lead, after one link. */
function blobsOf(repository: string, commit: string): string[] {
  const folder = snapshotFolder(repository, commit);
  const files = isFolder(folder) ? filesBelow(folder).map((path) => join(folder, path)) : [];
  const target = (file: string): string =>
    lstatSync(file).isSymbolicLink() ? resolve(dirname(file), readlinkSync(file)) : file;
  return [...new Set(files.map(target))];
}

/** Everything below a model's folder that is itself a file. */
function allFiles(repository: string): string[] {
  return filesBelow(repository)
    .map((path) => join(repository, path))
    .filter((file) => lstatSync(file, { throwIfNoEntry: false })?.isFile());
}

const bytesOf = (files: readonly string[]): number =>
  files.reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0);

const notStored = (cache: string, name: string): SparseVilaError =>
  new SparseVilaError(
    'ERR_MODEL_MISSING',
    `${name}: expected it in ${shownPath(cache)}, found nothing. \`sparsevila list\` shows its content.`,
  );
