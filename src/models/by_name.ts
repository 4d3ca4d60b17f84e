// Models by name: the files of a model that this package reads, the folder for a path or a Hub name, and the functions of the public API
// about models in the cache.

import { join, posix, relative } from 'node:path';
import { received, SparseVilaError } from '../errors';
import { insideFolder, isPresent } from '../files';
import { hubName, REVISION, requireHubName } from '../hub/names';
import { withOutline } from '../hub/outline';
import { hubSettings } from '../hub/settings';
import { type Needs, snapshot } from '../hub/snapshot';
import { type Removed, removeStored, type StoredModel, storedModels } from '../hub/stored';
import { configReader, readJson } from '../json';
import { checkOptions, FUNCTION, guardedCallback, invalidOption, SIGNAL } from '../options';
import type { OnProgress } from '../runtime/progress';
import { VILA_FOLDERS } from './families/vila';
import { checkInspect, type Inspection, type InspectOptions, inspect } from './inspect';
import { checkLoad, loadModel, planOf } from './load';
import type { LoadOptions, VisionLanguageModel } from './model';
import { PARTS } from './plan';

const INDEX = 'model.safetensors.index.json';
const WEIGHTS = 'model.safetensors';

/** Small files that are read if they exist. */
const CONFIGS: readonly string[] = [
  ...['config.json', 'generation_config.json', 'preprocessor_config.json', 'processor_config.json'],
  ...['video_preprocessor_config.json', 'adapter_config.json', 'quantize_config.json', 'quant_config.json'],
  ...['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json'],
  ...['chat_template.json', 'chat_template.jinja'],
];

/** Names of the same weights in other forms. */
const VARIANT = /^consolidated|[._-](fp16|fp32|bf16|fp8|int8|ema|non_ema)[._-]/i;

export const NEEDS: Needs = {
  configs: (paths) => {
    const all = new Set(paths);
    return ['', ...Object.values(VILA_FOLDERS)].flatMap((below) => {
      const names = [...CONFIGS];
      // Used only if there is no other file of its kind.
      if (!all.has(posix.join(below, 'tokenizer.json'))) names.push('tokenizer.model');
      if (!all.has(posix.join(below, WEIGHTS))) names.push(INDEX);
      return names.map((name) => posix.join(below, name)).filter((path) => all.has(path));
    });
  },
  weights: (folder, paths) => {
    const plan = planOf(folder);
    const text = relative(folder, plan.text.folder);
    if (!['tokenizer.json', 'tokenizer.model'].some((name) => paths.includes(posix.join(text, name))))
      throw noTokenizer(join(folder, text));
    const folders = new Set(PARTS.map((part) => relative(folder, plan.sources[part].folder)));
    return [...folders].flatMap((below) => weightFiles(folder, below, paths));
  },
};

/** The files that `openCheckpoint` reads in the folder `below` the checkpoint's. @throws SparseVilaError `ERR_CHECKPOINT_…`, `ERR_CONFIG_…` */
function weightFiles(folder: string, below: string, paths: readonly string[]): string[] {
  const beside = paths.filter((path) => posix.dirname(path) === (below || '.')).map((path) => posix.basename(path));
  if (beside.includes(WEIGHTS)) return [posix.join(below, WEIGHTS)];
  if (beside.includes(INDEX)) return [posix.join(below, INDEX), ...shards(folder, below)];
  const all = beside.filter((name) => name.endsWith('.safetensors') && !name.startsWith('.'));
  const [only, ...others] = all.length > 1 ? all.filter((name) => !VARIANT.test(name)) : all;
  if (only !== undefined && others.length === 0) return [posix.join(below, only)];
  const pickled = beside.find((name) => /\.(bin|pth|pt|gguf)(\.index\.json)?$/.test(name));
  throw new SparseVilaError(
    'ERR_CHECKPOINT_MISSING',
    `${join(folder, below)}: expected ${WEIGHTS}, ${INDEX} or one *.safetensors among the model's files, found ` +
      `${all.length > 0 ? `${all.length} *.safetensors files and no index` : (pickled ?? 'no weights')}. Use a repository that has safetensors.`,
  );
}

const noTokenizer = (folder: string): SparseVilaError =>
  new SparseVilaError(
    'ERR_CONFIG_MISSING',
    `${folder}: expected tokenizer.json or tokenizer.model among the model's files, found neither. Use a repository that has one.`,
  );

function shards(folder: string, below: string): string[] {
  const file = join(folder, below, INDEX);
  const index = configReader(readJson(file), file);
  const map = index.object('weight_map');
  if (map === undefined) throw index.wrong('weight_map', 'an object from tensor name to shard');
  const names = new Set(Object.keys(map.json).map((tensor) => map.string(tensor)));
  const at = { what: 'a shard', code: 'ERR_CHECKPOINT_INVALID' } as const;
  return [...names].map((name) => relative(folder, insideFolder(join(folder, below), name, at)));
}

/**
 * Loads a checkpoint folder, or the model of this name on the Hub.
 * @throws SparseVilaError as `loadModel` and `checkpointFolder`
 */
export async function loadByName(path: string, options?: LoadOptions): Promise<VisionLanguageModel> {
  const { revision, signal, onProgress } = checkLoad(path, options);
  const folder = await checkpointFolder(path, { revision, signal, onProgress });
  if (options?.revision === undefined) return await loadModel(folder, options);
  const { revision: _, ...others } = options;
  return await loadModel(folder, others);
}

export interface NamedOptions {
  readonly revision?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/**
 * The checkpoint folder for `path`: the path itself if it exists; otherwise, if it is a Hub name, the model's folder in the cache, into which
 * missing files are downloaded first.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_HUB_…`, `ERR_DISK_FULL`, …; `signal.reason`
 */
export async function checkpointFolder(path: string, options: NamedOptions = {}): Promise<string> {
  const { revision, ...given } = options;
  if (isPresent(path) || hubName(path) === undefined) {
    if (revision === undefined) return path;
    throw invalidOption('load', 'a revision with a Hub name only', `${received(revision)} for a path`);
  }
  return (await snapshot(requireHubName('load', path, revision), { ...given, needs: NEEDS })).folder;
}

/**
 * Describes a checkpoint folder, or the model of this name on the Hub: unless it is in the cache, its small files and the headers of its weights
 * are fetched, and not kept.
 * @throws SparseVilaError as `inspect` and `checkpointFolder`
 */
export async function inspectByName(path: string, options?: InspectOptions): Promise<Inspection> {
  const given = checkInspect(path, options);
  const name = isPresent(path) ? undefined : hubName(path);
  if (name === undefined) return await inspect(path, given);
  return await withOutline(name, { needs: NEEDS }, async (folder, shown) => {
    const found = await inspect(folder, given);
    const problems = found.problems.map((one) => ({ ...one, message: one.message.replaceAll(folder, shown) }));
    return { ...found, folder: shown, problems };
  });
}

export interface DownloadOptions {
  /** A branch, tag or commit; default `main`, or the revision in the name (`owner/name@revision`). */
  readonly revision?: string;
  readonly signal?: AbortSignal;
  /** Called with the bytes present and the bytes of all files, under one step. */
  readonly onProgress?: OnProgress;
}

export interface DownloadResult {
  /** `owner/name`. */
  readonly name: string;
  readonly commit: string;
  /** The checkpoint folder. */
  readonly folder: string;
  /** Number of bytes that were downloaded; 0 if nothing was missing. */
  readonly fetched: number;
}

/**
 * Downloads a model from the Hub into the cache, or the files that have changed. After an abort, the same call continues.
 * @throws SparseVilaError as `checkpointFolder`
 */
export async function download(name: string, options?: DownloadOptions): Promise<DownloadResult> {
  const { revision, signal, onProgress } = checkOptions<DownloadOptions>('download', options, {
    revision: REVISION,
    signal: SIGNAL,
    onProgress: FUNCTION,
  });
  const wanted = requireHubName('download', name, revision);
  const report = onProgress && guardedCallback('onProgress', onProgress);
  const found = await snapshot(wanted, { needs: NEEDS, update: true, signal, onProgress: report });
  return { name: wanted.name, ...found };
}

/** The models in the cache, downloaded by any tool. @throws SparseVilaError `ERR_HUB_SETTINGS` */
export async function list(): Promise<StoredModel[]> {
  return storedModels(hubSettings(), NEEDS);
}

export interface RemoveOptions {
  /** A branch, tag or commit. Without one here or in the name, all revisions of the model are removed. */
  readonly revision?: string;
}

/**
 * Removes a model from the cache, or one revision of it with the files that no other revision has.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_MODEL_MISSING`; `ERR_BUSY` while it is downloaded; `ERR_OUTPUT_UNWRITABLE`
 */
export async function remove(name: string, options?: RemoveOptions): Promise<Removed> {
  const { revision } = checkOptions<RemoveOptions>('remove', options, { revision: REVISION });
  const wanted = requireHubName('remove', name, revision);
  return await removeStored(hubSettings(), wanted.name, wanted.revision);
}
