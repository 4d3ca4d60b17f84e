// The conversion of each part of a checkpoint: the new form of its tensors, and its new config.

import { type QuantizationFacts, quantizedConfig, withType } from '../checkpoint/export';
import { QUANTIZED_FORMATS, type QuantizedFormat } from '../checkpoint/formats';
import type { Fp8Module } from '../checkpoint/fp8';
import type { FloatDtype } from '../checkpoint/half';
import type { QuantizedModule } from '../checkpoint/quantized';
import { readQuantization } from '../checkpoint/quantized_config';
import { SparseVilaError } from '../errors';
import type { Json } from '../json';
import type { ConvertOptions } from './convert';
import { type Checkpoint, type Layout, type Part, placeOf } from './layout';
import { float8Modules, quantizedModules, readMatrix, type Task, tasksOf, WRITTEN } from './tasks';

export const TARGET_FORMATS = ['float', ...QUANTIZED_FORMATS] as const;
export type TargetFormat = (typeof TARGET_FORMATS)[number];
export const TARGET_DTYPES = ['bf16', 'f16', 'f32'] as const;
const DTYPE: Readonly<Record<(typeof TARGET_DTYPES)[number], FloatDtype>> = { bf16: 'BF16', f16: 'F16', f32: 'F32' };
const TORCH_DTYPE: Readonly<Record<FloatDtype, string>> = { BF16: 'bfloat16', F16: 'float16', F32: 'float32' };

/** A part with the tasks that write it; for its config, the type of its float tensors and its remaining quantization. */
export interface PartPlan {
  readonly part: Part;
  readonly tasks: readonly Task[];
  readonly dtype: FloatDtype | undefined;
  readonly quantization: QuantizationFacts | undefined;
  /** Whether it has 8-bit tensors that stay as they are. */
  readonly is8Bit?: boolean;
}

export function planParts(
  { parts }: Checkpoint,
  { model, format, dtype }: ConvertOptions,
  layout: Layout | undefined,
): PartPlan[] {
  const found = parts.map((part) => {
    const config = readQuantization(part.folder);
    const float8 = format === 'float' ? float8Modules(part.entries, config) : [];
    return { part, modules: quantizedModules(part.entries, config), float8 };
  });
  // Some parts of a 4-bit checkpoint may be float.
  if (format !== undefined && format !== 'float' && found.every(({ modules }) => modules.length === 0))
    throw notQuantized(model, format);
  return found.map(({ part, ...matrices }) => {
    return planPart(part, matrices, {
      format,
      dtype: dtype && DTYPE[dtype],
      prefix: placeOf(part.name, layout).prefix,
    });
  });
}

function planPart(
  part: Part,
  matrices: { readonly modules: readonly QuantizedModule[]; readonly float8: readonly Fp8Module[] },
  { format, dtype, prefix }: { format: TargetFormat | undefined; dtype: FloatDtype | undefined; prefix: string },
): PartPlan {
  const { entries, folder } = part;
  const { modules, float8 } = matrices;
  const [first] = modules;
  const to = format ?? (first === undefined ? 'float' : WRITTEN[first.format]);
  if (to === undefined) {
    throw new SparseVilaError(
      'ERR_WEIGHT_FORMAT',
      `${folder}: ${first?.format} is read but not written. Give --format ${TARGET_FORMATS.join(' or ')} as well.`,
    );
  }
  const symmetric = to !== 'float' && modules.every((module) => readMatrix(module).zero.every((zero) => zero === 8));
  if (to === 'float' || first === undefined) {
    const tasks = tasksOf(entries, matrices, { format: 'float', dtype, symmetric, prefix });
    const made = first === undefined ? float8.length > 0 && 'BF16' : 'F16';
    const is8Bit = [...entries.values()].some(
      (one) => one.dtype === 'I8' || (one.dtype.startsWith('F8') && float8.length === 0),
    );
    return { part, tasks, dtype: dtype ?? (made || undefined), quantization: undefined, is8Bit };
  }
  // A config has only one group size.
  const other = modules.find(({ group }) => group !== first.group);
  if (other !== undefined) {
    throw new SparseVilaError(
      'ERR_WEIGHT_FORMAT',
      `${folder}: expected one group size, received groups of ${first.group} for "${first.name}" and of ${other.group} for ` +
        `"${other.name}". Only --format float takes both.`,
    );
  }
  const tasks = tasksOf(entries, matrices, { format: to, dtype, symmetric, prefix });
  const ignore = floatLinears(part, to, modules);
  return { part, tasks, dtype, quantization: { format: to, groupSize: first.group, symmetric, ignore } };
}

/** Linear layers of a 4-bit part that are in floating point: those that its config lists; without one, an output head and a tower's pooling head. */
function floatLinears(
  { name, config, entries }: Part,
  to: QuantizedFormat,
  modules: readonly QuantizedModule[],
): string[] {
  const { modules_to_not_convert: older, ignore = older } = (config?.quantization_config ?? {}) as Json;
  // AutoAWQ has no regular expressions.
  const isListed = Array.isArray(ignore) && (to !== 'autoawq' || ignore.every((one) => !String(one).startsWith('re:')));
  if (isListed) return ignore;
  const isPooling = (one: string): boolean => /^(vision_tower\.)?(vision_model\.)?head\..*\.weight$/.test(one);
  const heads = [...entries.values()].filter((entry) => isPooling(entry.name) && entry.shape.length === 2);
  const hasHead = name === 'llm' || name === '.';
  const head = hasHead && modules.every((module) => module.name !== 'lm_head') ? ['lm_head'] : [];
  return [...head, ...heads.map((entry) => entry.name.replace(/\.weight$/, ''))];
}

function notQuantized(folder: string, format: QuantizedFormat): SparseVilaError {
  return new SparseVilaError(
    'ERR_NOT_QUANTIZED',
    `${folder}: expected 4-bit weights to write as ${format}, found float ones. \`sparsevila quantize\` makes 4-bit weights.`,
  );
}

/** The config of a converted part: its data type and its quantization. */
export function configOf(config: Json, { dtype, quantization, is8Bit }: Omit<PartPlan, 'part' | 'tasks'>): Json {
  if (quantization !== undefined) return quantizedConfig(config, quantization);
  const { quantization_config: settings, compression_config: older, ...rest } = config;
  const typed = dtype === undefined ? rest : withType(rest, TORCH_DTYPE[dtype]);
  if (is8Bit !== true) return typed;
  return {
    ...typed,
    ...(settings != null && { quantization_config: settings }),
    ...(older != null && { compression_config: older }),
  };
}
