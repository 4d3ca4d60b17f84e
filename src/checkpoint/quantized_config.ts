// Reads a checkpoint's quantization config, and refuses unsupported settings. The tensors decide the form of a
// module; the config is used for messages, for the group size, which must agree, and for what tensors do not show (GPTQ's version).
// Source: transformers 5.18 `utils/quantization_config.py`, compressed-tensors 0.10 `quant_config.py`, AutoAWQ, AutoGPTQ 0.7.

import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { isPresent } from '../files';
import { type ConfigReader, configReader, readJson } from '../json';

export interface QuantizationConfig {
  readonly file: string;
  readonly method: 'awq' | 'compressed-tensors' | 'gptq' | 'fp8';
  /** The layout that the file names; of several, 4 bits. */
  readonly layout: 'gemm' | 'gemv' | 'gemv_fast' | CompressedLayout | 'gptq' | 'gptq_v2';
  /** Inputs per scale, -1 for whole rows. Several if modules differ; empty if the file has none. */
  readonly groupSizes: readonly number[];
  /** Undefined if modules differ, or if the file does not say. */
  readonly symmetric: boolean | undefined;
  /** Whether inputs were reordered, with the order in a g_idx. */
  readonly activationOrder: boolean;
  /** Of 8-bit floats, outputs and inputs per scale; undefined if the file does not say. */
  readonly block?: Block | undefined;
  /** compressed-tensors' `config_groups` or GPTQModel's `dynamic` rules, of which one applies to each module; of several, the first. */
  readonly groups?: readonly QuantizationGroup[];
}

type CompressedLayout = 'pack-quantized' | 'int-quantized' | 'float-quantized';
type Block = readonly [rows: number, k: number];

/** One of `config_groups`, for the modules that `targets` name: full names, "re:" and a regular expression, or classes. */
export interface QuantizationGroup {
  readonly layout: CompressedLayout | 'gptq';
  readonly targets: readonly string[];
  /** Undefined if the file does not say. */
  readonly groupSize: number | undefined;
  readonly symmetric: boolean | undefined;
  readonly activationOrder: boolean;
  readonly block?: Block | undefined;
}

/**
 * The quantization of the checkpoint in `folder`: `quantization_config` (or `compression_config`) of its config.json or of the
 * `text_config` (`llm_config`) there, else AutoAWQ's quant_config.json, else AutoGPTQ's quantize_config.json; undefined if there is none.
 * @throws SparseVilaError as `parseQuantization`.
 */
export function readQuantization(folder: string): QuantizationConfig | undefined {
  const file = join(folder, 'config.json');
  if (isPresent(file)) {
    const root = configReader(readJson(file), file);
    for (const part of [root, root.object('text_config'), configAt(root, 'llm_config'), configAt(root, 'llm_cfg')]) {
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

/** The quantization in a config object under `quantization_config` or `compression_config`. Throws as `parseQuantization`. */
export function quantizationIn(config: ConfigReader): QuantizationConfig | undefined {
  const found = config.object('quantization_config') ?? config.object('compression_config');
  return found && parseQuantization(found);
}

/** VILA's `llm_cfg` is an object or a path. */
const configAt = (root: ConfigReader, key: string): ConfigReader | undefined =>
  typeof root.json[key] === 'object' ? root.object(key) : undefined;

/**
 * Parses one `quantization_config` object.
 * @throws SparseVilaError `ERR_QUANTIZATION_UNSUPPORTED` for another method or width, quantized activations or caches, or a
 *   transform; `ERR_CONFIG_INVALID` for wrong values.
 */
export function parseQuantization(config: ConfigReader): QuantizationConfig {
  const guess = config.has('config_groups') ? 'compressed-tensors' : config.has('w_bit') ? 'awq' : undefined;
  const method = tag(config.string('quant_method', guess)).replace(/-marlin$/, '');
  if (method === 'awq' || method === 'autoawq') return parseAwq(config);
  if (method === 'compressed-tensors') return parseCompressed(config);
  if (method === 'gptq' || method === 'autogptq') return parseGptq(config);
  if (method === 'fp8' || method === 'fbgemm-fp8' || method === 'modelopt') return parseFp8(config, method);
  throw unsupported(config, 'quant_method', 'awq, compressed-tensors or gptq of 4 bits, or fp8');
}

/** A normalized name for any spelling: awq_marlin, AWQ, compressed_tensors. */
const tag = (name: string): string => name.trim().toLowerCase().replaceAll('_', '-');

function parseAwq(config: ConfigReader): QuantizationConfig {
  requireValues(config, { [config.has('w_bit') ? 'w_bit' : 'bits']: [4], zero_point: [true] });
  const layout = layoutOf(config, 'version', ['gemm', 'gemv', 'gemv_fast']);
  const groupSizes = groupSizesOf(config, config.has('q_group_size') ? 'q_group_size' : 'group_size');
  return { file: config.file, method: 'awq', layout, groupSizes, symmetric: false, activationOrder: false };
}

function parseGptq(config: ConfigReader): QuantizationConfig {
  requireValues(config, { bits: [4, undefined] });
  const symmetric = config.has('sym') ? config.boolean('sym') : undefined;
  const activationOrder = config.boolean('desc_act', false);
  const groupSizes = groupSizesOf(config, 'group_size');
  const rules = rulesOf(config, { layout: 'gptq', groupSize: groupSizes[0], symmetric, activationOrder });
  return {
    ...{ file: config.file, method: 'gptq', layout: layoutOf(config, 'checkpoint_format', ['gptq', 'gptq_v2']) },
    ...{ groupSizes, symmetric, activationOrder },
    ...(rules.length > 0 && { groups: rules }),
  };
}

/**
 * GPTQModel's `dynamic`: an object from regular expression ("+:" before it means nothing, "-:" that the module stays float) to settings that
 * differ from the common ones, which hold for the rest.
 */
function rulesOf(config: ConfigReader, common: Omit<QuantizationGroup, 'targets'>): QuantizationGroup[] {
  const dynamic = config.object('dynamic');
  const rules = Object.keys(dynamic?.json ?? {}).filter((pattern) => !pattern.startsWith('-:'));
  if (dynamic === undefined || rules.length === 0) return [];
  const own = rules.map((pattern): QuantizationGroup => {
    const rule = dynamic.object(pattern);
    if (rule === undefined) throw dynamic.wrong(pattern, 'an object of settings');
    const [groupSize = common.groupSize] = groupSizesOf(rule, 'group_size');
    return {
      ...{ layout: common.layout, targets: [`re:${pattern.replace(/^\+:/, '')}`], groupSize },
      symmetric: rule.has('sym') ? rule.boolean('sym') : common.symmetric,
      activationOrder: rule.boolean('desc_act', common.activationOrder),
    };
  });
  return [...own, { ...common, targets: ['Linear'] }];
}

/** 8-bit floats of transformers (`fp8`, `fbgemm_fp8`) and of NVIDIA's `modelopt`. What is said of activations is not needed. */
function parseFp8(config: ConfigReader, method: string): QuantizationConfig {
  if (method === 'modelopt') requireValues(config, { quant_algo: ['FP8'] });
  else requireValues(config, { fmt: ['e4m3'] });
  const common = { method: 'fp8', layout: 'float-quantized', groupSizes: [], symmetric: true } as const;
  return { file: config.file, ...common, activationOrder: false, block: blockOf(config, 'weight_block_size') };
}

function blockOf(config: ConfigReader, key: string): Block | undefined {
  if (!config.has(key)) return undefined;
  const [rows, k, ...more]: unknown[] = Array.isArray(config.json[key]) ? config.json[key] : [];
  const isSide = (side: unknown): side is number => Number.isSafeInteger(side) && Number(side) > 0;
  if (!isSide(rows) || !isSide(k) || more.length > 0) throw config.wrong(key, 'two positive integers');
  return [rows, k];
}

/** One of the supported layouts, by its name; the first if none is named. */
function layoutOf<T extends string>(config: ConfigReader, key: string, layouts: readonly [T, ...T[]]): T {
  const given = tag(config.string(key, layouts[0]));
  const layout = layouts.find((name) => tag(name) === given);
  if (layout === undefined) throw unsupported(config, key, `one of ${layouts.join(', ')}`);
  return layout;
}

function parseCompressed(config: ConfigReader): QuantizationConfig {
  requireValues(config, { kv_cache_scheme: [null] });
  if (Object.keys(config.object('transform_config')?.json ?? {}).length > 0)
    throw unsupported(config, 'transform_config', 'none: rotated weights are not supported');
  const sparsity = config.object('sparsity_config');
  if (sparsity !== undefined) requireValues(sparsity, { format: ['dense'] });
  const groups = config.object('config_groups');
  const parsed = Object.keys(groups?.json ?? {}).map((name) => parseGroup(config, groups?.object(name)));
  if (parsed.length === 0) throw config.wrong('config_groups', 'an object of at least one group');
  const has = (layout: CompressedLayout): boolean => parsed.some((group) => group.layout === layout);
  const layout = (['int-quantized', 'pack-quantized'] as const).find(has) ?? 'float-quantized';
  if (layout === 'int-quantized' && parsed.some((group) => group.layout !== layout))
    throw unsupported(config, 'config_groups', 'groups of one format beside 8-bit integers');
  const packed = parsed.filter((group) => group.layout === 'pack-quantized');
  const symmetries = new Set(packed.map(({ symmetric }) => symmetric));
  return {
    ...{ file: config.file, method: 'compressed-tensors', layout },
    groupSizes: [...new Set(packed.flatMap(({ groupSize = [] }) => groupSize))],
    symmetric: symmetries.size > 1 ? undefined : (packed[0]?.symmetric ?? true),
    activationOrder: parsed.some(({ activationOrder }) => activationOrder),
    groups: parsed,
  };
}

/**
 * Parses one of `config_groups`; absent keys have the defaults of compressed-tensors' `QuantizationArgs`. 4 bits: weights alone. 8 bits (W8A8):
 * symmetric weights with a scale per output, symmetric activations with a scale per token, found as the product runs. 8-bit floats: weights;
 * what is said of activations is not needed.
 */
function parseGroup(config: ConfigReader, group: ConfigReader | undefined): QuantizationGroup {
  const weights = group?.object('weights');
  if (group === undefined || weights === undefined) throw config.wrong('config_groups', 'groups with weights');
  const format = group.has('format') ? group : config;
  const layout = tag(format.string('format', 'pack-quantized'));
  const targets: unknown = group.json.targets ?? [];
  if (!Array.isArray(targets) || !targets.every((target) => typeof target === 'string'))
    throw group.wrong('targets', 'a list of names');
  if (layout === 'int-quantized' && weights.number('num_bits', 8) === 8) {
    const inputs = group.object('input_activations');
    if (inputs === undefined) throw unsupported(group, 'input_activations', '8 bits per token');
    const common = { type: ['int'], num_bits: [8], symmetric: [true] } as const;
    requireValues(weights, { ...common, strategy: ['channel', 'tensor'], dynamic: [false] });
    requireValues(inputs, { ...common, strategy: ['token', 'tensor'], dynamic: [true, false] });
    requireValues(group, { output_activations: [null] });
    return { layout, targets, groupSize: -1, symmetric: true, activationOrder: false };
  }
  if ((layout === 'float-quantized' || layout === 'naive-quantized') && weights.json.type === 'float') {
    requireValues(weights, { num_bits: [8], symmetric: [true], dynamic: [false] });
    const common = { groupSize: -1, symmetric: true, activationOrder: false } as const;
    return { layout: 'float-quantized', targets, ...common, block: blockOf(weights, 'block_structure') };
  }
  if (layout !== 'pack-quantized') {
    const known = 'pack-quantized of 4 bits, float-quantized of 8 bits or int-quantized of 8 bits';
    throw unsupported(format, 'format', known);
  }
  requireValues(weights, { type: ['int'], num_bits: [4, 8], dynamic: [false] });
  requireValues(group, { input_activations: [null], output_activations: [null] });
  const [size = -1] = groupSizesOf(weights, 'group_size');
  const strategy = tag(weights.string('strategy', size > 0 ? 'group' : 'channel'));
  if (strategy !== 'group' && strategy !== 'channel') throw unsupported(weights, 'strategy', 'group or channel');
  const groupSize = strategy === 'channel' ? -1 : size;
  const symmetric = weights.boolean('symmetric', true);
  return { layout, targets, groupSize, symmetric, activationOrder: isOrdered(weights) };
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

function groupSizesOf(config: ConfigReader, key: string): number[] {
  if (!config.has(key)) return [];
  const size = config.number(key);
  if (size !== -1 && !(Number.isInteger(size) && size > 0 && size < 2 ** 31))
    throw config.wrong(key, 'a positive integer below 2^31, or -1');
  return [size];
}

type Value = string | number | boolean | null;

/**
 * Requires the one supported value of each key; a second value is the meaning of an absent key, if that differs.
 * @throws SparseVilaError `ERR_QUANTIZATION_UNSUPPORTED`
 */
function requireValues(
  config: ConfigReader,
  values: Readonly<Record<string, readonly [read: Value, absent?: Value | undefined]>>,
): void {
  for (const [key, allowed] of Object.entries(values)) {
    const [read] = allowed;
    const given: unknown = config.json[key] ?? (allowed.length > 1 ? allowed[1] : read);
    // 1 and 0 are true and false in Python.
    const isRead = typeof read === 'boolean' ? Number(given) === Number(read) : given === read;
    if (!isRead && !(typeof given === 'string' && tag(given) === read)) throw unsupported(config, key, `${read}`);
  }
}

function unsupported(config: ConfigReader, key: string, expected: string): SparseVilaError {
  const { message } = config.wrong(key, expected);
  return new SparseVilaError('ERR_QUANTIZATION_UNSUPPORTED', `${message}. This quantization is not supported.`);
}
