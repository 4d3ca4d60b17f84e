// The folder of a model by name: the copy in the cache if it is complete; otherwise missing files are downloaded.

import { codeOf } from '../errors';
import { filesBelow, isFolder } from '../files';
import type { OnProgress } from '../runtime/progress';
import { isFileOf, readListing, readRef, repositoryFolder, snapshotFolder } from './cache';
import { download } from './download';
import { offlineError } from './errors';
import { DEFAULT_REVISION, type HubName, isCommit } from './names';
import { filesOf, infoOf } from './repository';
import type { Call } from './request';
import { type HubSettings, hubSettings } from './settings';

/** The files of a model that are needed; this folder does not know their content. */
export interface Needs {
  /** The small files among `paths`, which are downloaded first. */
  configs(paths: readonly string[]): readonly string[];
  /**
   * The weight files, determined from the small files in `folder`. May name paths that are not among `paths`, which are then missing.
   * @throws SparseVilaError for a model that cannot be loaded from these files
   */
  weights(folder: string, paths: readonly string[]): readonly string[];
}

export interface SnapshotOptions {
  readonly needs: Needs;
  /** Whether to ask the Hub for the newest commit of a branch even if a complete copy of an older one is in the cache. */
  readonly update?: boolean;
  readonly settings?: HubSettings;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface Snapshot {
  readonly folder: string;
  readonly commit: string;
  /** Number of bytes that this call downloaded. */
  readonly fetched: number;
}

/** The state of a snapshot in the cache; `refused` is the reason why the model cannot be loaded from the Hub's files. */
export interface SnapshotState {
  readonly isWhole: boolean;
  readonly refused?: unknown;
}

/** Errors of `Needs.weights` that further files may resolve. */
const MISSING: readonly (string | undefined)[] = [
  'ERR_MODEL_MISSING',
  'ERR_CONFIG_MISSING',
  'ERR_CHECKPOINT_MISSING',
  'ERR_FILE_MISSING',
];

/**
 * The folder of a model. Makes no request if it is complete in the cache, unless `update` is set.
 * @throws SparseVilaError `ERR_HUB_…`, `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`, `ERR_PATH_OUTSIDE`, `ERR_BUSY`; errors of `needs.weights`;
 *   `signal.reason`
 */
export async function snapshot(wanted: HubName, options: SnapshotOptions): Promise<Snapshot> {
  const { needs, signal, onProgress, update = false, settings = hubSettings() } = options;
  signal?.throwIfAborted();
  const { revision = DEFAULT_REVISION, name } = wanted;
  const cached =
    !update || settings.offline || isCommit(revision) ? cachedSnapshot(wanted, needs, settings) : undefined;
  if (cached !== undefined) return cached;
  if (settings.offline) throw offlineError(wanted, settings.cache);
  const call: Call = { subject: { ...wanted, endpoint: settings.endpoint }, settings, signal };
  const repository = repositoryFolder(settings.cache, name);
  const noted = isCommit(revision) ? readListing(repository, revision) : undefined;
  const info = noted === undefined ? await infoOf(call) : { commit: revision, files: noted };
  const { commit } = info;
  const isKnown = isCommit(revision) || readRef(repository, revision) === commit;
  // Without the lock, so that a cache that cannot be written will do.
  if (isKnown && snapshotState(repository, commit, needs).isWhole)
    return { folder: snapshotFolder(repository, commit), commit, fetched: 0 };
  const files = readListing(repository, commit) ?? info.files ?? (await filesOf(call, commit));
  const fetched = await download(call, { repository, commit, files }, needs, onProgress);
  return { folder: snapshotFolder(repository, commit), commit, fetched };
}

/**
 * A model that is complete in the cache, at the commit that its revision was when it was downloaded.
 * @throws errors of `needs.weights`
 */
export function cachedSnapshot(wanted: HubName, needs: Needs, { cache }: HubSettings): Snapshot | undefined {
  const { revision = DEFAULT_REVISION, name } = wanted;
  const repository = repositoryFolder(cache, name);
  const commit = isCommit(revision) ? revision : readRef(repository, revision);
  if (commit === undefined) return undefined;
  const { isWhole, refused } = snapshotState(repository, commit, needs);
  if (refused !== undefined) throw refused;
  return isWhole ? { folder: snapshotFolder(repository, commit), commit, fetched: 0 } : undefined;
}

/** Whether a snapshot has the needed files, judged by its files and the stored listing. */
export function snapshotState(repository: string, commit: string, needs: Needs): SnapshotState {
  const folder = snapshotFolder(repository, commit);
  if (!isFolder(folder)) return { isWhole: false };
  const listed = readListing(repository, commit);
  const sizes = new Map(listed?.map(({ path, size }) => [path, size]));
  const paths = listed === undefined ? filesBelow(folder) : [...sizes.keys()];
  const has = (path: string): boolean => isFileOf(`${folder}/${path}`, sizes.get(path));
  if (!needs.configs(paths).every(has)) return { isWhole: false };
  try {
    return { isWhole: needs.weights(folder, paths).every(has) };
  } catch (refused) {
    return listed === undefined && MISSING.includes(codeOf(refused)) ? { isWhole: false } : { isWhole: false, refused };
  }
}
