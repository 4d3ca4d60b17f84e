// Converts a checkpoint folder: any supported 4-bit layout to AutoAWQ or compressed-tensors (a lossless permutation) or to
// floats, one float type to another, VILA's folders to the one folder of the NVILA -hf ports and back. The output is read back
// and compared tensor by tensor before it gets its name.

import { lstatSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { copyTree } from '../checkpoint/copy_tree';
import { isWeightFile, writeCheckpoint, writeJson } from '../checkpoint/export';
import { openCheckpoint, type TensorEntries } from '../checkpoint/safetensors';
import type { TensorSource } from '../checkpoint/safetensors_writer';
import { openWorkFolder, runKey, type WorkFolder } from '../checkpoint/work_folder';
import { codeOf, SparseVilaError } from '../errors';
import type { Json } from '../json';
import { pacer } from '../models/pacer';
import { checkOptions, FUNCTION, guardedCallback, invalidOption, NAME, oneOf, SIGNAL } from '../options';
import { requireSpace, writeError } from '../runtime/atomic';
import type { OnProgress } from '../runtime/progress';
import {
  type Checkpoint,
  configFiles,
  LAYOUTS,
  type Layout,
  movedFile,
  openParts,
  type Part,
  placeOf,
  VILA_PARTS,
} from './layout';
import { configOf, type PartPlan, planParts, TARGET_DTYPES, TARGET_FORMATS, type TargetFormat } from './part_plan';
import type { Task } from './tasks';

export interface ConvertOptions {
  readonly model: string;
  /** New folder. */
  readonly out: string;
  /** Layout of 4-bit matrices, or 'float'. Default: unchanged. */
  readonly format?: TargetFormat | undefined;
  /** Data type of float tensors. Default: unchanged; f16 for dequantized ones. */
  readonly dtype?: (typeof TARGET_DTYPES)[number] | undefined;
  /** Folders of parts, or one folder as in the NVILA -hf ports. Default: unchanged. */
  readonly layout?: Layout | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface ConvertResult {
  readonly out: string;
  /** Number of converted matrices, and of tensors compared with the original. */
  readonly converted: number;
  readonly verified: number;
}

/**
 * Converts `model` into the new folder `out`. After an interruption the same call continues: finished shards are not written again.
 * @throws SparseVilaError `ERR_OPTION_INVALID`; `ERR_NOT_QUANTIZED` (a 4-bit format requested for float weights);
 *   `ERR_WEIGHT_…` (unsupported weights, or values that the other form cannot hold); `ERR_CONVERT_LOSS` (the output differs from
 *   the input); `ERR_MODEL_TYPE` (no such layout for this model); `ERR_OUTPUT_EXISTS`, `ERR_BUSY`, `ERR_DISK_FULL`; `signal.reason`
 */
export async function convert(given: ConvertOptions): Promise<ConvertResult> {
  const options = checkConvertOptions(given);
  const { model, out, signal } = options;
  const onProgress = guardedCallback('onProgress', options.onProgress ?? (() => undefined));
  const checkpoint = openParts(model);
  const layout = options.layout ?? checkpoint.layout;
  if (options.layout !== undefined && checkpoint.layout === undefined) throw noLayout(model);
  const plans = planParts(checkpoint, options, layout);
  const tasks = plans.flatMap((plan) => plan.tasks);
  const sources = tasks.flatMap((task) => task.sources);
  const total = 2 * bytesOf(sources);
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    onProgress({ step: 'convert', done, total, unit: 'B' });
  };
  const key = runKey(
    [resolve(model), options.format, options.dtype, options.layout],
    checkpoint.parts.flatMap(({ entries }) => [...entries.values()]),
  );
  const work = openWorkFolder(out, key, [model]);
  const made = join(work.folder, `made-${key.slice(0, 16)}`);
  try {
    const written = await writeParts(made, checkpoint, plans, { layout, model, onBytes, signal });
    const pace = pacer(signal);
    for (const { part, tasks: own } of plans)
      for (const task of own) {
        if (!task.check(written.get(placeOf(part.name, layout).folder) as TensorEntries)) throw loss(part, task);
        onBytes(bytesOf(task.sources));
        await pace();
      }
    await work.installMade(made);
    return {
      out: resolve(out),
      converted: tasks.filter(({ converted }) => converted).length,
      verified: sources.length,
    };
  } catch (error) {
    await keepForLater(error, work, made);
    throw writeError(error, work.folder);
  } finally {
    work.close();
  }
}

const bytesOf = (sources: readonly TensorSource[]): number =>
  sources.reduce((sum, { byteLength }) => sum + byteLength, 0);

function loss({ folder }: Part, { sources }: Task): SparseVilaError {
  return new SparseVilaError(
    'ERR_CONVERT_LOSS',
    `${folder}: "${sources[0]?.name}" cannot be represented in the requested format: values read back differ. Try --dtype bf16 or f32.`,
  );
}

/** Keeps partial output after an abort or a full disk, so that the run can continue; removes it after other errors. */
async function keepForLater(error: unknown, work: WorkFolder, made: string): Promise<void> {
  const code = codeOf(error);
  const stopped = !(error instanceof SparseVilaError) || code === 'ERR_DISK_FULL' || code === 'ERR_OUTPUT_UNWRITABLE';
  if (stopped) work.finish('begun', true);
  else await rm(made, { recursive: true, force: true });
}

interface Writing {
  readonly layout: Layout | undefined;
  readonly model: string;
  readonly onBytes: (bytes: number) => void;
  readonly signal: AbortSignal | undefined;
}

/** Writes configs, other files and weights below `made`; the weights read back, by folder. */
async function writeParts(
  made: string,
  checkpoint: Checkpoint,
  plans: readonly PartPlan[],
  { layout, model, onBytes, signal }: Writing,
): Promise<Map<string, TensorEntries>> {
  const configs = new Map<Part['name'], Json>();
  const sources = new Map<string, TensorSource[]>();
  for (const { part, tasks, ...facts } of plans) {
    if (part.config !== undefined) configs.set(part.name, configOf(part.config, facts, part.entries));
    const { folder } = placeOf(part.name, layout);
    sources.set(folder, [...(sources.get(folder) ?? []), ...tasks.flatMap((task) => task.sources)]);
  }
  const files = configFiles(checkpoint, configs, layout);
  const owned = new Set(['config.json', ...checkpoint.parts.map(({ name }) => join(name, 'config.json'))]);
  const move = (path: string): string => movedFile(path, checkpoint.layout, layout);
  await mkdir(made, { recursive: true });
  const finished = await keepShards(made);
  await requireSpace(made, bytesOf([...sources.values()].flat()) - finished);
  const skip = (path: string): boolean => owned.has(path) || isWeightFile(path);
  await copyTree(model, made, { skip, move, parts: VILA_PARTS.map((name) => join(model, name)), signal });
  const written = new Map<string, TensorEntries>();
  for (const folder of sources.keys()) await mkdir(join(made, folder), { recursive: true });
  for (const [path, json] of files) writeJson(join(made, path), json);
  for (const [folder, tensors] of sources) {
    await writeCheckpoint(join(made, folder), tensors, { onBytes, signal, resume: true });
    written.set(folder, openCheckpoint(join(made, folder)));
  }
  return written;
}

/** Removes the files of an interrupted conversion except complete shards; returns their bytes. */
async function keepShards(made: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(made, { recursive: true })) {
    const path = join(made, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined || stat.isDirectory()) continue;
    if (stat.isFile() && path.endsWith('.safetensors')) bytes += stat.size;
    else await rm(path);
  }
  return bytes;
}

function checkConvertOptions(options: ConvertOptions): ConvertOptions {
  const given = checkOptions<ConvertOptions>('convert', options, {
    model: { ...NAME, required: true },
    out: { ...NAME, required: true },
    format: oneOf(...TARGET_FORMATS),
    dtype: oneOf(...TARGET_DTYPES),
    layout: oneOf(...LAYOUTS),
    signal: SIGNAL,
    onProgress: FUNCTION,
  });
  if (given.format === undefined && given.dtype === undefined && given.layout === undefined)
    throw invalidOption('convert', 'a format, a dtype or a layout to convert to', 'none of them');
  return given;
}

function noLayout(model: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_MODEL_TYPE',
    `${model}: expected a VILA checkpoint (llm/, vision_tower/, mm_projector/, or model_type nvila or nvila_lite) to change ` +
      'the layout of, found another kind. Leave --layout out.',
  );
}
