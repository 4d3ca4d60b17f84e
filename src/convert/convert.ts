// Converts a checkpoint folder: any 4-bit layout that is read to AutoAWQ or compressed-tensors (a permutation, nothing lost) or to
// floats, one float type to another, VILA's folders to the one folder of the NVILA -hf ports and back. What was written is read again
// and compared tensor by tensor before it gets its name.

import { createHash } from 'node:crypto';
import { lstatSync, statSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { copyTree } from '../checkpoint/copy_tree';
import { isWeightFile, quantizedConfig, writeCheckpoint, writeJson } from '../checkpoint/export';
import { QUANTIZED_FORMATS, type QuantizedFormat } from '../checkpoint/formats';
import type { FloatDtype } from '../checkpoint/half';
import type { QuantizedModule } from '../checkpoint/quantized';
import { readQuantization } from '../checkpoint/quantized_config';
import type { TensorSource } from '../checkpoint/safetensors_writer';
import { openTensors, type Tensors, withPrefix } from '../checkpoint/tensors';
import { openWorkFolder, type WorkFolder } from '../checkpoint/work_folder';
import { codeOf, SparseVilaError } from '../errors';
import type { Json } from '../json';
import { checkOptions, FUNCTION, guardedCallback, invalidOption, NAME, oneOf, SIGNAL } from '../options';
import { requireSpace, writeError } from '../runtime/atomic';
import type { OnProgress } from '../runtime/progress';
import { type Plan, planFloats, planQuantized, quantizedModules, WRITTEN } from './convert_plan';
import { type Checkpoint, configFiles, LAYOUTS, type Layout, movedFile, openParts, type Part, placeOf } from './layout';
import { VILA_PARTS } from './vila_parts';

export const TARGET_FORMATS = ['float', ...QUANTIZED_FORMATS] as const;
export type TargetFormat = (typeof TARGET_FORMATS)[number];
export const TARGET_DTYPES = ['bf16', 'f16', 'f32'] as const;
const DTYPE: Readonly<Record<(typeof TARGET_DTYPES)[number], FloatDtype>> = { bf16: 'BF16', f16: 'F16', f32: 'F32' };
const TORCH_DTYPE: Readonly<Record<FloatDtype, string>> = { BF16: 'bfloat16', F16: 'float16', F32: 'float32' };

export interface ConvertOptions {
  readonly model: string;
  /** New folder. */
  readonly out: string;
  /** Layout of 4-bit matrices, or 'float'. Default: as it is. */
  readonly format?: TargetFormat | undefined;
  /** Type of float tensors. Default: as it is; f16 for what was 4-bit. */
  readonly dtype?: (typeof TARGET_DTYPES)[number] | undefined;
  /** Folders of parts, or one folder as the NVILA -hf ports. Default: as it is. */
  readonly layout?: Layout | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface ConvertResult {
  readonly out: string;
  /** Matrices that changed their form, and tensors compared with the original. */
  readonly converted: number;
  readonly verified: number;
}

/** A part and what is written for it. */
interface PartPlan {
  readonly part: Part;
  readonly plan: Plan;
}

/**
 * Converts `model` into the new folder `out`. Interrupted, the same call continues: finished shards are not written again.
 * @throws SparseVilaError `ERR_OPTION_INVALID`; `ERR_NOT_QUANTIZED` (a 4-bit format asked of float weights);
 *   `ERR_WEIGHT_…` (weights that are not read, or that the other form cannot hold); `ERR_CONVERT_LOSS` (what was written is not
 *   what was read); `ERR_MODEL_TYPE` (no such layout for this model); `ERR_OUTPUT_EXISTS`, `ERR_BUSY`, `ERR_DISK_FULL`; `signal.reason`
 */
export async function convert(given: ConvertOptions): Promise<ConvertResult> {
  const options = checkConvertOptions(given);
  const { model, out, signal } = options;
  const onProgress = guardedCallback('onProgress', options.onProgress ?? (() => undefined));
  const checkpoint = openParts(model);
  const layout = options.layout ?? checkpoint.layout;
  if (options.layout !== undefined && checkpoint.layout === undefined) throw noLayout(model);
  const plans = planParts(checkpoint, options);
  const total = plans.reduce((sum, { plan }) => sum + 2 * plan.bytes, 0);
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    onProgress({ step: 'convert', done, total, unit: 'B' });
  };
  const key = keyOf(options, checkpoint);
  const work = openWorkFolder(out, key, [model]);
  const made = join(work.folder, `made-${key.slice(0, 16)}`);
  try {
    const folders = await writeParts(made, checkpoint, plans, { layout, model, onBytes, signal });
    let verified = 0;
    for (const { part, plan } of plans) {
      const { folder, prefix } = placeOf(part.name, layout);
      verified += await plan.verify(withPrefix(folders.get(folder) as Tensors, prefix), onBytes, signal);
    }
    await work.installMade(made);
    return { out: resolve(out), converted: plans.reduce((sum, { plan }) => sum + plan.converted, 0), verified };
  } catch (error) {
    await keepForLater(error, work, made);
    throw writeError(error, work.folder);
  } finally {
    work.close();
  }
}

/** What was stopped, or found the disk full, can go on; what is wrong leaves nothing. */
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
): Promise<Map<string, Tensors>> {
  const configs = new Map<Part['name'], Json>();
  for (const { part, plan } of plans)
    if (part.config !== undefined) configs.set(part.name, configOf(part.config, plan, part.tensors));
  const sources = new Map<string, TensorSource[]>();
  for (const { part, plan } of plans) {
    const { folder, prefix } = placeOf(part.name, layout);
    const named = plan.sources.map((source) => ({ ...source, name: prefix + source.name }));
    sources.set(folder, [...(sources.get(folder) ?? []), ...named]);
  }
  const files = configFiles(checkpoint, configs, layout);
  const owned = new Set(['config.json', ...checkpoint.parts.map(({ name }) => join(name, 'config.json'))]);
  const move = (path: string): string => movedFile(path, checkpoint.layout, layout);
  await mkdir(made, { recursive: true });
  const finished = await keepShards(made);
  const bytes = [...sources.values()].flat().reduce((sum, { byteLength }) => sum + byteLength, 0);
  await requireSpace(made, bytes - finished);
  const skip = (path: string): boolean => owned.has(path) || isWeightFile(path);
  await copyTree(model, made, { skip, move, parts: VILA_PARTS.map((name) => join(model, name)), signal });
  const written = new Map<string, Tensors>();
  for (const folder of sources.keys()) await mkdir(join(made, folder), { recursive: true });
  for (const [path, json] of files) writeJson(join(made, path), json);
  for (const [folder, tensors] of sources) {
    await writeCheckpoint(join(made, folder), tensors, { onBytes, signal, resume: true });
    written.set(folder, openTensors(join(made, folder)));
  }
  return written;
}

/** Removes what an interrupted conversion left but whole shards; returns their bytes. */
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

/** Of what a conversion depends on: what is continued must be the same. */
function keyOf({ model, format, dtype, layout }: ConvertOptions, { parts }: Checkpoint): string {
  const hash = createHash('sha256').update(JSON.stringify([resolve(model), format, dtype, layout]));
  const files = new Set(parts.flatMap(({ tensors }) => [...tensors.entries.values()].map(({ file }) => file)));
  for (const file of [...files].sort()) {
    const { size, mtimeMs } = statSync(file);
    hash.update(JSON.stringify([file, size, mtimeMs]));
  }
  return hash.digest('hex');
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

function planParts({ parts }: Checkpoint, { model, format, dtype }: ConvertOptions): PartPlan[] {
  const found = parts.map((part) => ({
    part,
    modules: quantizedModules(part.tensors, readQuantization(part.tensors.folder)),
  }));
  // Of a 4-bit checkpoint some parts are float.
  if (format !== undefined && format !== 'float' && found.every(({ modules }) => modules.length === 0))
    throw notQuantized(model, format);
  const target = dtype && DTYPE[dtype];
  return found.map(({ part, modules }) => ({ part, plan: planPart(part, modules, format, target) }));
}

function planPart(
  { tensors, name }: Part,
  modules: readonly QuantizedModule[],
  format: TargetFormat | undefined,
  dtype: FloatDtype | undefined,
): Plan {
  const [first] = modules;
  if (first === undefined) return planFloats(tensors, dtype);
  const to = format ?? WRITTEN[first.format];
  if (to !== undefined) return planQuantized(tensors, modules, to, dtype, floatLinears(name, tensors, modules));
  throw new SparseVilaError(
    'ERR_WEIGHT_FORMAT',
    `${tensors.folder}: ${first.format} is read but not written. Give --format ${TARGET_FORMATS.join(' or ')} as well.`,
  );
}

/** Linear layers of a 4-bit part that are in floating point: an output head, a tower's pooling head. */
function floatLinears(part: Part['name'], tensors: Tensors, modules: readonly QuantizedModule[]): string[] {
  if (part === 'mm_projector') return [];
  if (part === 'vision_tower') return headLinears(tensors);
  return modules.some(({ name }) => name === 'lm_head') ? [] : ['lm_head'];
}

/** Linear layers of a tower's pooling head. */
function headLinears({ entries }: Tensors): string[] {
  const isHead = (name: string): boolean => /^(vision_tower\.)?(vision_model\.)?head\..*\.weight$/.test(name);
  const names = [...entries.values()].filter(({ name, shape }) => isHead(name) && shape.length === 2);
  return names.map(({ name }) => name.slice(0, -'.weight'.length));
}

function notQuantized(folder: string, format: QuantizedFormat): SparseVilaError {
  return new SparseVilaError(
    'ERR_NOT_QUANTIZED',
    `${folder}: expected 4-bit weights to write as ${format}, found float ones. \`sparsevila quantize\` makes 4-bit weights.`,
  );
}

/** The config of a converted part: its type, and how it is quantised. */
function configOf(config: Json, { dtype, quantization }: Plan, { entries }: Tensors): Json {
  if (quantization !== undefined) return quantizedConfig(config, quantization);
  const { quantization_config: settings, compression_config: older, ...rest } = config;
  // 8-bit weights stay what they are.
  const bytes = [...entries.values()].some((entry) => entry.dtype === 'I8');
  const kept = bytes
    ? {
        ...(settings != null && { quantization_config: settings }),
        ...(older != null && { compression_config: older }),
      }
    : {};
  if (dtype === undefined) return { ...rest, ...kept };
  const key = 'dtype' in rest && !('torch_dtype' in rest) ? 'dtype' : 'torch_dtype';
  return { ...rest, [key]: TORCH_DTYPE[dtype], ...kept };
}
