// What a checkpoint's config says about its quantisation, and the refusal of what we do not read. The tensors decide what a
// module is; this serves messages, the group size that has to agree with them, and what tensors cannot say (GPTQ's version).
// Source: transformers 5.18 `utils/quantization_config.py`, compressed-tensors 0.10 `quant_config.py`, AutoAWQ, AutoGPTQ 0.7.

import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { isPresent } from '../files';
import { type ConfigReader, configReader, readJson } from '../json';

export interface QuantizationConfig {
  readonly file: string;
  readonly method: 'awq' | 'compressed-tensors' | 'gptq';
  /** The layout that the file names. */
  readonly layout: 'gemm' | 'gemv' | 'gemv_fast' | 'pack-quantized' | 'int-quantized' | 'gptq' | 'gptq_v2';
  /** Inputs per scale, -1 for whole rows. Several where modules differ; empty when the file does not say. */
  readonly groupSizes: readonly number[];
  /** Undefined where modules differ, or the file does not say. */
  readonly symmetric: boolean | undefined;
  /** Inputs were reordered, and the order is in a g_idx. */
  readonly activationOrder: boolean;
  /** compressed-tensors' `config_groups`, of which one applies to each module. */
  readonly groups?: readonly QuantizationGroup[];
}

/** What one of `config_groups` says of the modules that `targets` name: full names, "re:" and a regular expression, or classes. */
export interface QuantizationGroup {
  readonly layout: 'pack-quantized' | 'int-quantized';
  readonly targets: readonly string[];
  readonly groupSize: number;
  readonly symmetric: boolean;
  readonly activationOrder: boolean;
}

/**
 * The quantisation of the checkpoint in `folder`: `quantization_config` (or `compression_config`) of its config.json or of the
 * `text_config` there, else AutoAWQ's quant_config.json, else AutoGPTQ's quantize_config.json; undefined when there is none.
 * @throws SparseVilaError as `parseQuantization`.
 */
export function readQuantization(folder: string): QuantizationConfig | undefined {
  const file = join(folder, 'config.json');
  if (isPresent(file)) {
    const root = configReader(readJson(file), file);
    for (const part of [root, root.object('text_config'), configAt(root, 'llm_cfg')]) {
      const found = part && quantizationIn(part);
      if (found !== undefined) return found;
    }
  }
  for (const [name, method] of [
    ['quant_config.json', 'awq'],
    ['quantize_config.json', 'gptq'],
  ] as const) {
    const older = join(folder, name);
    if (isPresent(older)) return parseQuantization(configReader({ quant_method: method, ...readJson(older) }, older));
  }
  return undefined;
}

/** What a config object says under `quantization_config` or `compression_config`. Throws as `parseQuantization`. */
export function quantizationIn(config: ConfigReader): QuantizationConfig | undefined {
  const found = config.object('quantization_config') ?? config.object('compression_config');
  return found && parseQuantization(found);
}

/** VILA's `llm_cfg` is an object, or a path. */
const configAt = (root: ConfigReader, key: string): ConfigReader | undefined =>
  typeof root.json[key] === 'object' ? root.object(key) : undefined;

/**
 * Parses one `quantization_config` object.
 * @throws SparseVilaError `ERR_QUANTIZATION_UNSUPPORTED` for another method or width, quantised activations or caches, or a
 *   transform; `ERR_CONFIG_INVALID` for wrong values.
 */
export function parseQuantization(config: ConfigReader): QuantizationConfig {
  const guess = config.has('config_groups') ? 'compressed-tensors' : config.has('w_bit') ? 'awq' : undefined;
  const method = tag(config.string('quant_method', guess)).replace(/-marlin$/, '');
  if (method === 'awq' || method === 'autoawq') return parseAwq(config);
  if (method === 'compressed-tensors') return parseCompressed(config);
  if (method === 'gptq' || method === 'autogptq') return parseGptq(config);
  throw unsupported(config, 'quant_method', 'awq, compressed-tensors or gptq, 4 bits');
}

/** A descriptive name, however it is spelt: awq_marlin, AWQ, compressed_tensors. */
const tag = (name: string): string => name.trim().toLowerCase().replaceAll('_', '-');

function parseAwq(config: ConfigReader): QuantizationConfig {
  requireFour(config, config.has('w_bit') ? 'w_bit' : 'bits', 4);
  const version = tag(config.string('version', 'gemm'));
  const layout = (['gemm', 'gemv', 'gemv_fast'] as const).find((name) => tag(name) === version);
  if (layout === undefined) throw unsupported(config, 'version', 'gemm, gemv or gemv_fast');
  if (!config.boolean('zero_point', true)) throw unsupported(config, 'zero_point', 'true');
  const groupSizes = groupSizesOf(config, config.has('q_group_size') ? 'q_group_size' : 'group_size');
  return { file: config.file, method: 'awq', layout, groupSizes, symmetric: false, activationOrder: false };
}

function parseGptq(config: ConfigReader): QuantizationConfig {
  requireFour(config, 'bits');
  const format = tag(config.string('checkpoint_format', 'gptq'));
  const layout = (['gptq', 'gptq_v2'] as const).find((name) => tag(name) === format);
  if (layout === undefined) throw unsupported(config, 'checkpoint_format', 'gptq or gptq_v2');
  return {
    file: config.file,
    method: 'gptq',
    layout,
    groupSizes: groupSizesOf(config, 'group_size'),
    symmetric: config.has('sym') ? config.boolean('sym') : undefined,
    activationOrder: config.boolean('desc_act', false),
  };
}

function parseCompressed(config: ConfigReader): QuantizationConfig {
  if (config.has('kv_cache_scheme')) throw unsupported(config, 'kv_cache_scheme', 'null: caches are not quantised');
  const transforms = config.object('transform_config');
  if (transforms !== undefined && Object.keys(transforms.json).length > 0)
    throw unsupported(config, 'transform_config', 'none: rotated weights are not supported');
  const sparsity = config.object('sparsity_config')?.string('format', 'dense');
  if (sparsity !== undefined && sparsity !== 'dense') throw unsupported(config, 'sparsity_config', 'format dense');
  const groups = config.object('config_groups');
  const parsed = Object.keys(groups?.json ?? {}).map((name) => parseGroup(config, groups?.object(name)));
  if (parsed.length === 0) throw config.wrong('config_groups', 'an object of at least one group');
  const symmetries = new Set(parsed.map(({ symmetric }) => symmetric));
  const [layout = 'pack-quantized', ...others] = new Set(parsed.map((group) => group.layout));
  if (others.length > 0) throw unsupported(config, 'config_groups', 'groups of one format');
  return {
    file: config.file,
    method: 'compressed-tensors',
    layout,
    groupSizes: layout === 'int-quantized' ? [] : [...new Set(parsed.map(({ groupSize }) => groupSize))],
    symmetric: symmetries.size === 1 ? parsed[0]?.symmetric : undefined,
    activationOrder: parsed.some(({ activationOrder }) => activationOrder),
    groups: parsed,
  };
}

/** One of `config_groups`; what it leaves out has the defaults of compressed-tensors' `QuantizationArgs`. */
function parseGroup(config: ConfigReader, group: ConfigReader | undefined): QuantizationGroup {
  const weights = group?.object('weights');
  if (group === undefined || weights === undefined) throw config.wrong('config_groups', 'groups with weights');
  const layout = group.has('format') ? group : config;
  const format = tag(layout.string('format', 'pack-quantized'));
  if (format === 'int-quantized' && weights.number('num_bits', 8) === 8) return parseInt8Group(group, weights);
  if (format !== 'pack-quantized')
    throw unsupported(layout, 'format', 'pack-quantized of 4 bits or int-quantized of 8 bits');
  if (tag(weights.string('type', 'int')) !== 'int') throw unsupported(weights, 'type', 'int');
  requireFour(weights, 'num_bits', 8);
  for (const key of ['input_activations', 'output_activations'])
    if (group.has(key)) throw unsupported(group, key, 'null: activations are not quantised in the file');
  // 'local' is a third value there: a string.
  if ((weights.json.dynamic ?? false) !== false) throw unsupported(weights, 'dynamic', 'false');
  const groupSize = weights.number('group_size', -1);
  const strategy = tag(weights.string('strategy', groupSize > 0 ? 'group' : 'channel'));
  if (strategy !== 'group' && strategy !== 'channel') throw unsupported(weights, 'strategy', 'group or channel');
  const [size = -1] = groupSizesOf(weights, 'group_size');
  return {
    layout: 'pack-quantized',
    targets: targetsOf(group),
    groupSize: strategy === 'channel' ? -1 : size,
    symmetric: weights.boolean('symmetric', true),
    activationOrder: isOrdered(weights),
  };
}

/** `actorder`: 'weight' and 'static' order the rounding only; 'group' and 'dynamic' the groups themselves. */
function isOrdered(weights: ConfigReader): boolean {
  const order: unknown = weights.json.actorder ?? false;
  if (typeof order === 'boolean') return order;
  const known = { weight: false, static: false, group: true, dynamic: true, none: false };
  const found = typeof order === 'string' ? Object.entries(known).find(([name]) => name === tag(order)) : undefined;
  if (found === undefined) throw weights.wrong('actorder', `null or one of ${Object.keys(known).join(', ')}`);
  return found[1];
}

function targetsOf(group: ConfigReader): string[] {
  const targets: unknown = group.json.targets ?? [];
  if (Array.isArray(targets) && targets.every((target) => typeof target === 'string')) return targets;
  throw group.wrong('targets', 'a list of names');
}

/** W8A8: symmetric weights with a scale per output, symmetric activations with a scale per token, found as the product runs. */
function parseInt8Group(group: ConfigReader, weights: ConfigReader): QuantizationGroup {
  const inputs = group.object('input_activations');
  if (inputs === undefined) throw unsupported(group, 'input_activations', '8 bits per token');
  for (const [part, strategy, dynamic] of [
    [weights, 'channel', false],
    [inputs, 'token', true],
  ] as const) {
    if (tag(part.string('type', 'int')) !== 'int') throw unsupported(part, 'type', 'int');
    if (part.number('num_bits', 8) !== 8) throw unsupported(part, 'num_bits', '8');
    if (tag(part.string('strategy', 'tensor')) !== strategy) throw unsupported(part, 'strategy', strategy);
    if (!part.boolean('symmetric', true)) throw unsupported(part, 'symmetric', 'true');
    // 'local' is a third value there: a string.
    if ((part.json.dynamic ?? false) !== dynamic) throw unsupported(part, 'dynamic', String(dynamic));
  }
  if (group.has('output_activations')) throw unsupported(group, 'output_activations', 'null');
  return {
    layout: 'int-quantized',
    targets: targetsOf(group),
    groupSize: -1,
    symmetric: true,
    activationOrder: false,
  };
}

function groupSizesOf(config: ConfigReader, key: string): number[] {
  if (!config.has(key)) return [];
  const size = config.number(key);
  if (size !== -1 && !(Number.isInteger(size) && size > 0 && size < 2 ** 31))
    throw config.wrong(key, 'a positive integer below 2^31, or -1');
  return [size];
}

function requireFour(config: ConfigReader, key: string, fallback?: number): void {
  if (config.number(key, fallback) !== 4) throw unsupported(config, key, '4');
}

function unsupported(config: ConfigReader, key: string, expected: string): SparseVilaError {
  const { message } = config.wrong(key, expected);
  return new SparseVilaError('ERR_QUANTIZATION_UNSUPPORTED', `${message}. This quantisation is not supported.`);
}
