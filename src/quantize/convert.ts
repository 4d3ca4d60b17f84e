// Converts a checkpoint folder: AutoAWQ to compressed-tensors and back (a permutation, nothing lost), 4-bit to float, and one float
// type to another. What was written is read again and compared tensor by tensor before it gets its name.

import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { SparseVilaError } from '../errors';
import { type Json, readJson } from '../json';
import type { OnProgress } from '../runtime/progress';
import { type Module4, type Plan, planFloats, planQuantized, quantizedModules } from './convert_plan';
import { copyTree, isWeightFile, quantizedConfig, writeCheckpoint, writeJson } from './export';
import { QUANTIZED_FORMATS, type QuantizedFormat } from './formats';
import type { FloatDtype } from './half';
import { openTensors, type Tensors } from './tensors';
import { openWorkFolder } from './work_folder';

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
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface ConvertResult {
  readonly out: string;
  /** Matrices that changed their form, and tensors compared with the original. */
  readonly converted: number;
  readonly verified: number;
}

/** The folders of a VILA checkpoint that hold weights; the root itself where a checkpoint is one folder. */
const PARTS = ['llm', 'vision_tower', 'mm_projector', '.'] as const;

/**
 * Converts `model` into the new folder `out`.
 * @throws SparseVilaError `ERR_OPTION_INVALID`; `ERR_NOT_QUANTIZED` (a 4-bit format asked of float weights);
 *   `ERR_WEIGHT_FORMAT` (a 4-bit format that is not read); `ERR_CONVERT_LOSS` (what was written is not what was read);
 *   `ERR_OUTPUT_EXISTS`, `ERR_DISK_FULL`; `signal.reason`
 */
export async function convert(options: ConvertOptions): Promise<ConvertResult> {
  const { model, out, signal, onProgress = () => undefined } = options;
  checkOptions(options);
  const parts = PARTS.filter((part) => hasWeights(join(model, part)));
  if (parts.length === 0) {
    throw new SparseVilaError('ERR_MODEL_MISSING', `Expected a checkpoint with safetensors at ${model}, found none.`);
  }
  const plans = parts.map((part) => planPart(join(model, part), options));
  const total = plans.reduce((sum, plan) => sum + 2 * plan.bytes, 0);
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    onProgress({ step: 'convert', done, total, unit: 'B' });
  };
  const work = openWorkFolder(out, 'convert');
  let verified = 0;
  try {
    await work.install(async (folder) => {
      const rewritten = new Set(
        parts.flatMap((part) => (existsSync(join(model, part, 'config.json')) ? [join(part, 'config.json')] : [])),
      );
      await copyTree(model, folder, (path) => rewritten.has(path) || isWeightFile(path), signal);
      for (const [i, part] of parts.entries()) {
        const plan = plans[i] as Plan;
        await mkdir(join(folder, part), { recursive: true });
        const config = join(part, 'config.json');
        if (rewritten.has(config)) await writeJson(join(folder, config), configOf(readJson(join(model, config)), plan));
        await writeCheckpoint(join(folder, part), plan.sources, { onBytes, signal });
        verified += await plan.verify(openTensors(join(folder, part)), onBytes, signal);
      }
    });
    return { out: resolve(out), converted: plans.reduce((sum, plan) => sum + plan.converted, 0), verified };
  } finally {
    work.close();
  }
}

function checkOptions({ format, dtype }: ConvertOptions): void {
  const wrong = (name: string, values: readonly string[], received: string): SparseVilaError =>
    new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected one of ${values.join(', ')} for ${name}, received ${received}.`,
    );
  if (format !== undefined && !TARGET_FORMATS.includes(format)) throw wrong('format', TARGET_FORMATS, format);
  if (dtype !== undefined && !TARGET_DTYPES.includes(dtype)) throw wrong('dtype', TARGET_DTYPES, dtype);
  if (format === undefined && dtype === undefined)
    throw new SparseVilaError('ERR_OPTION_INVALID', 'Expected a format or a dtype to convert to, received neither.');
}

function hasWeights(folder: string): boolean {
  return ['model.safetensors', 'model.safetensors.index.json'].some((name) => existsSync(join(folder, name)));
}

function planPart(folder: string, { format, dtype }: ConvertOptions): Plan {
  const tensors = openTensors(folder);
  const modules = quantizedModules(tensors, configAt(folder));
  const target = dtype && DTYPE[dtype];
  if (modules.length === 0) {
    // Towers and projectors are float in 4-bit checkpoints too; a decoder is not.
    if (format !== undefined && format !== 'float' && isDecoder(tensors)) throw notQuantized(folder, format);
    return planFloats(tensors, target);
  }
  return planQuantized(tensors, modules, format ?? (modules[0] as Module4).format, target);
}

const isDecoder = ({ entries }: Tensors): boolean =>
  [...entries.keys()].some((name) => /(^|\.)layers\.\d+\.mlp\./.test(name) && !/vision/.test(name));

function notQuantized(folder: string, format: QuantizedFormat): SparseVilaError {
  return new SparseVilaError(
    'ERR_NOT_QUANTIZED',
    `${folder}: expected 4-bit weights to write as ${format}, found float ones. \`sparsevila quantize\` makes 4-bit weights.`,
  );
}

function configAt(folder: string): Json {
  const file = join(folder, 'config.json');
  return existsSync(file) ? readJson(file) : {};
}

/** The config of a converted part: its type, and how it is quantised. */
function configOf(config: Json, { dtype, quantization }: Plan): Json {
  if (quantization !== undefined) return quantizedConfig(config, quantization);
  const { quantization_config: _, compression_config: __, ...rest } = config;
  if (dtype === undefined) return rest;
  const key = 'dtype' in rest && !('torch_dtype' in rest) ? 'dtype' : 'torch_dtype';
  return { ...rest, [key]: TORCH_DTYPE[dtype] };
}
