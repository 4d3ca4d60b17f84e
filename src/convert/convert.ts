// Converts a checkpoint folder: any supported 4-bit layout to AutoAWQ or compressed-tensors (a lossless permutation) or to
// floats, one float type to another, VILA's folders to the one folder of the NVILA -hf ports and back. The output is read back
// and compared tensor by tensor before it gets its name.

import { join, resolve } from 'node:path';
import { byteLength, isWeightFile } from '../checkpoint/export';
import type { TensorEntries } from '../checkpoint/safetensors';
import type { TensorSource } from '../checkpoint/safetensors_writer';
import { openWorkFolder, runKey } from '../checkpoint/work_folder';
import { type Changes, installCopy, type Verify } from '../checkpoint/write_copy';
import { SparseVilaError } from '../errors';
import type { Json } from '../json';
import { pacer } from '../models/pacer';
import { checkOptions, FUNCTION, guardedCallback, invalidOption, NAME, oneOf, SIGNAL } from '../options';
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
  const key = runKey(
    [resolve(model), options.format, options.dtype, options.layout],
    checkpoint.parts.flatMap(({ entries }) => [...entries.values()]),
  );
  const work = openWorkFolder(out, key, [model]);
  const verify: Verify = async (written, onBytes) => {
    const pace = pacer(signal);
    for (const { part, tasks: own } of plans)
      for (const task of own) {
        if (!task.check(written.get(placeOf(part.name, layout).folder) as TensorEntries)) throw loss(part, task);
        onBytes(byteLength(task.sources));
        await pace();
      }
  };
  try {
    const run = { work, key, step: 'convert', onProgress };
    await installCopy(model, changesOf(checkpoint, plans, options, layout), run, verify);
    return {
      out: resolve(out),
      converted: tasks.filter(({ converted }) => converted).length,
      verified: tasks.flatMap((task) => task.sources).length,
    };
  } finally {
    work.close();
  }
}

function loss({ folder }: Part, { sources }: Task): SparseVilaError {
  return new SparseVilaError(
    'ERR_CONVERT_LOSS',
    `${folder}: "${sources[0]?.name}" cannot be represented in the requested format: values read back differ. Try --dtype bf16 or f32.`,
  );
}

/** Configs, weights and places of files in the new layout. */
function changesOf(
  checkpoint: Checkpoint,
  plans: readonly PartPlan[],
  { model, signal }: ConvertOptions,
  layout: Layout | undefined,
): Changes {
  const configs = new Map<Part['name'], Json>();
  const weights = new Map<string, TensorSource[]>();
  for (const { part, tasks, ...facts } of plans) {
    if (part.config !== undefined) configs.set(part.name, configOf(part.config, facts));
    const { folder } = placeOf(part.name, layout);
    weights.set(folder, [...(weights.get(folder) ?? []), ...tasks.flatMap((task) => task.sources)]);
  }
  const owned = new Set(['config.json', ...checkpoint.parts.map(({ name }) => join(name, 'config.json'))]);
  return {
    ...{ weights, configs: configFiles(checkpoint, configs, layout), signal },
    skip: (path) => owned.has(path) || isWeightFile(path),
    move: (path) => movedFile(path, checkpoint.layout, layout),
    parts: VILA_PARTS.map((name) => join(model, name)),
  };
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
