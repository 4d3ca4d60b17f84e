// Writes a checkpoint folder that differs from another in some tensors and configs; everything else is copied. Shards are written
// sequentially, one tensor at a time. Of quantization it knows only the names of tensors.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Json } from '../json';
import { replaceFile } from '../runtime/atomic';
import type { QuantizedFormat, RawTensor } from './formats';
import type { TensorEntry } from './safetensors';
import { copyOf, type TensorSource, type WriteOptions, writeSafetensors } from './safetensors_writer';

/** Maximum bytes of a shard, as in Hugging Face's own files. */
const SHARD_BYTES = 4 * 2 ** 30;

/** A raw tensor as something to write. */
export function asSource({ name, dtype, shape, bytes }: RawTensor, prefix = ''): TensorSource {
  return { name: prefix + name, dtype, shape, byteLength: bytes.byteLength, bytes: () => bytes };
}

/**
 * Writes tensors as `model.safetensors`, or as shards with an index if they exceed one shard. Existing shards are
 * kept: a file gets its name only when it is complete.
 */
export async function writeCheckpoint(
  folder: string,
  tensors: readonly TensorSource[],
  options: WriteOptions & { readonly shardBytes?: number } = {},
): Promise<void> {
  const write = async (file: string, part: readonly TensorSource[]): Promise<void> => {
    if (!existsSync(file)) return writeSafetensors(file, part, options);
    options.onBytes?.(byteLength(part));
  };
  const shards = shardsOf(tensors, options.shardBytes ?? SHARD_BYTES);
  if (shards.length === 1) return write(join(folder, 'model.safetensors'), tensors);
  const weightMap: Record<string, string> = Object.create(null); // a tensor may be called __proto__
  for (const [i, shard] of shards.entries()) {
    const number = (n: number): string => String(n).padStart(5, '0');
    const file = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    await write(join(folder, file), shard);
    for (const { name } of shard) weightMap[name] = file;
  }
  const index = { metadata: { total_size: byteLength(tensors) }, weight_map: weightMap };
  writeJson(join(folder, 'model.safetensors.index.json'), index);
}

export const byteLength = (sources: readonly TensorSource[]): number =>
  sources.reduce((sum, source) => sum + source.byteLength, 0);

function shardsOf(tensors: readonly TensorSource[], limit: number): TensorSource[][] {
  const shards: TensorSource[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    if (bytes > 0 && bytes + tensor.byteLength > limit) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)?.push(tensor);
    bytes += tensor.byteLength;
  }
  return shards;
}

/** The original's tensors in order, some replaced by new ones of the same name; a module's new parts follow or replace its weight. */
export function mergedTensors(entries: readonly TensorEntry[], made: readonly TensorSource[]): TensorSource[] {
  const known = new Set(entries.map(({ name }) => name));
  const partsOf = new Map<string, TensorSource[]>();
  for (const source of made) {
    const place = known.has(source.name) ? source.name : source.name.replace(/\.[^.]*$/, '.weight');
    partsOf.set(place, [...(partsOf.get(place) ?? []), source]);
  }
  return entries.flatMap((entry) => partsOf.get(entry.name) ?? [copyOf(entry)]);
}

/** Whether a file contains weights or their index, which a new checkpoint of the same folder replaces. */
export const isWeightFile = (name: string): boolean => /\.safetensors(\.index\.json)?$/.test(name);

export const writeJson = (file: string, json: unknown): void => replaceFile(file, `${JSON.stringify(json, null, 2)}\n`);

export interface QuantizationFacts {
  readonly format: QuantizedFormat;
  readonly groupSize: number;
  readonly symmetric: boolean;
  /** Modules left in floating point. */
  readonly ignore: readonly string[];
}

/** A config with the `quantization_config` that readers of the format expect, and f16 as its type. */
export function quantizedConfig(config: Json, facts: QuantizationFacts): Json {
  const { quantization_config: _, compression_config: __, ...rest } = config;
  return { ...withType(rest, 'float16'), quantization_config: quantizationOf(facts) };
}

/** A config that names the type of its weights, by torch's name. */
export const withType = (config: Json, type: string): Json => ({
  ...config,
  ['dtype' in config && !('torch_dtype' in config) ? 'dtype' : 'torch_dtype']: type,
});

function quantizationOf({ format, groupSize, symmetric, ignore }: QuantizationFacts): Json {
  if (format === 'autoawq') {
    // Symmetric matrices are written with zero points of 8, because the layout requires zero points.
    const common = { quant_method: 'awq', bits: 4, group_size: groupSize, zero_point: true, version: 'gemm' };
    return { ...common, modules_to_not_convert: ignore };
  }
  const weights = { num_bits: 4, type: 'int', strategy: 'group', group_size: groupSize, symmetric };
  return compressedTensors('pack-quantized', { ...weights, actorder: null, dynamic: false }, null, ignore);
}

/** A config with the `quantization_config` of compressed-tensors' int-quantized, 8-bit weights and dynamic 8-bit activations. */
export function eightBitConfig(config: Json, ignore: readonly string[]): Json {
  const common = { num_bits: 8, type: 'int', symmetric: true, group_size: null };
  const weights = { ...common, strategy: 'channel', dynamic: false, actorder: null };
  const inputs = { ...common, strategy: 'token', dynamic: true };
  return { ...config, quantization_config: compressedTensors('int-quantized', weights, inputs, ignore) };
}

function compressedTensors(format: string, weights: Json, inputs: Json | null, ignore: readonly string[]): Json {
  const group = { targets: ['Linear'], weights, input_activations: inputs, output_activations: null };
  return {
    ...{ quant_method: 'compressed-tensors', format, quantization_status: 'compressed' },
    config_groups: { group_0: group },
    ...{ ignore, kv_cache_scheme: null },
  };
}
