// Checkpoints of whole models at the sizes of published ones, with random weights. The tensors are those that the model's own builders request;
// their names in the files, tokenizer, template and the remaining settings are a fixture's.
// Source of the sizes: the config files of Qwen/Qwen2.5-VL-7B-Instruct and Qwen/Qwen3-VL-8B-Instruct.

import { cpSync, mkdirSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { writeCheckpoint, writeJson } from '../../src/checkpoint/export';
import { encodeFloats } from '../../src/checkpoint/half';
import type { TensorSource } from '../../src/checkpoint/safetensors_writer';
import { type Json, readJson } from '../../src/json';
import { buildParts, indexOptions } from '../../src/models/assemble';
import { NO_WEIGHTS } from '../../src/models/counted_weights';
import { decoder } from '../../src/models/decoder';
import { planOf } from '../../src/models/load';
import type { PartName, Plan } from '../../src/models/plan';
import { weightIndex } from '../../src/models/weight_index';
import type { Weights } from '../../src/models/weights';
import { packageFolder } from '../../src/runtime/paths';
import { type Draw, norm, normals, powerOf, tensor } from './random_tensors';

const QWEN2_5 = {
  ...{
    hidden_size: 3584,
    intermediate_size: 18944,
    num_hidden_layers: 28,
    num_attention_heads: 28,
    num_key_value_heads: 4,
  },
  ...{
    vocab_size: 152064,
    max_position_embeddings: 128000,
    rope_theta: 1e6,
    rope_scaling: { type: 'mrope', mrope_section: [16, 24, 24] },
  },
};
const QWEN3 = {
  ...{
    hidden_size: 4096,
    intermediate_size: 12288,
    num_hidden_layers: 36,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 128,
  },
  ...{ vocab_size: 151936, max_position_embeddings: 262144, rope_theta: 5e6 },
  rope_scaling: { rope_type: 'default', mrope_interleaved: true, mrope_section: [24, 20, 20] },
};

/** The fixture that a model is like, its config over the fixture's, its processor's settings, and the layout of its published 4 bits. */
export const VLMS = {
  'qwen2.5-vl-7b': {
    like: 'qwen_vl/qwen2.5-vl',
    config: (layers: number) => ({
      ...{ ...QWEN2_5, num_hidden_layers: layers },
      vision_config: {
        ...{
          depth: 32,
          hidden_size: 1280,
          intermediate_size: 3420,
          num_heads: 16,
          out_hidden_size: 3584,
          patch_size: 14,
        },
        ...{ window_size: 112, fullatt_block_indexes: [7, 15, 23, 31] },
      },
    }),
    layers: QWEN2_5.num_hidden_layers,
    pictures: { min_pixels: 3136, max_pixels: 12845056, patch_size: 14 },
    format: 'autoawq',
  },
  'qwen3-vl-8b': {
    like: 'qwen_vl/qwen3-vl',
    config: (layers: number) => ({
      text_config: { ...QWEN3, num_hidden_layers: layers },
      vision_config: {
        ...{
          depth: 27,
          hidden_size: 1152,
          intermediate_size: 4304,
          num_heads: 16,
          out_hidden_size: 4096,
          patch_size: 16,
        },
        ...{ num_position_embeddings: 2304, deepstack_visual_indexes: [8, 16, 24] },
      },
    }),
    layers: QWEN3.num_hidden_layers,
    pictures: {
      patch_size: 16,
      size: { shortest_edge: 65536, longest_edge: 16777216 },
      min_pixels: null,
      max_pixels: null,
    },
    format: 'compressed-tensors',
  },
} as const;
export type VlmShape = keyof typeof VLMS;
export const isVlm = (shape: string): shape is VlmShape => Object.hasOwn(VLMS, shape);

const GROUP = 128;
export const QUANTIZATION = {
  autoawq: {
    quant_method: 'awq',
    bits: 4,
    group_size: GROUP,
    zero_point: true,
    version: 'gemm',
    modules_to_not_convert: ['visual'],
  },
  'compressed-tensors': {
    ...{ quant_method: 'compressed-tensors', format: 'pack-quantized', quantization_status: 'compressed' },
    config_groups: {
      group_0: {
        targets: ['Linear'],
        weights: { num_bits: 4, type: 'int', strategy: 'group', group_size: GROUP, symmetric: true, dynamic: false },
        input_activations: null,
      },
    },
    ...{ ignore: ['lm_head', 're:.*visual.*'], kv_cache_scheme: null },
  },
} as const;

/** Writes a folder of a model. `layers`: fewer layers of the decoder than the model has. */
export async function writeVlm(
  shape: VlmShape,
  {
    layers,
    out,
    weights,
  }: { readonly layers: number | undefined; readonly out: string; readonly weights: 'bf16' | '4-bit' },
): Promise<void> {
  const { like, config, pictures, format, ...own } = VLMS[shape];
  const fixture = join(packageFolder(), 'spec', 'fixtures', like);
  mkdirSync(out);
  for (const name of readdirSync(fixture))
    if (!/safetensors|^expected|\.png$/.test(name)) cpSync(join(fixture, name), join(out, name));
  const change = (name: string, changes: Json): void => {
    writeJson(join(out, name), merged(readJson(join(fixture, name)), changes));
  };
  const quantization = weights === 'bf16' ? {} : { quantization_config: QUANTIZATION[format] };
  change('config.json', { ...config(layers ?? own.layers), ...quantization });
  for (const name of readdirSync(fixture)) if (/preprocessor_config\.json$/.test(name)) change(name, pictures);
  const tensors = await tensorsOf(planOf(out), planOf(fixture), weights === 'bf16' ? undefined : format);
  await writeCheckpoint(out, tensors);
  process.stdout.write(`${JSON.stringify({ out: resolve(out), shape, layers: layers ?? own.layers, weights })}\n`);
}

/** `changes` over `json`, objects by their fields; null removes a field. */
function merged(json: Json, changes: Json): Json {
  const isObject = (value: unknown): value is Json =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const own = Object.entries(changes).map(([key, value]) => {
    const old = json[key];
    return [key, isObject(value) && isObject(old) ? merged(old, value) : value] as const;
  });
  return Object.fromEntries(
    Object.entries({ ...json, ...Object.fromEntries(own) }).filter(([, value]) => value !== null),
  );
}

export type Format = (typeof VLMS)[VlmShape]['format'];

/** The tensors that the builders of a model request, under the names of a fixture of its family. */
async function tensorsOf(plan: Plan, fixture: Plan, format: Format | undefined): Promise<TensorSource[]> {
  const draw = normals();
  const sources: TensorSource[] = [];
  const recorder = (part: PartName): Weights => {
    const { entries } = weightIndex(fixture.sources[part].folder, indexOptions(fixture, part));
    const fileName = (name: string): string => {
      const [, layer = ''] = /\.(\d+)\./.exec(name) ?? [];
      const like = entries.get(name) ?? entries.get(name.replace(`.${layer}.`, '.0.'));
      if (like === undefined) throw new Error(`Expected ${name} in the fixture ${fixture.folder}.`);
      return entries.has(name) ? like.name : like.name.replace('.0.', `.${layer}.`);
    };
    const vector = (name: string, shape: readonly number[]): void => {
      const isNorm = /norm|ln_q/.test(name) && name.endsWith('.weight');
      const width = shape.reduce((a, b) => a * b, 1);
      sources.push(
        isNorm ? norm(fileName(name), width, draw) : tensor(fileName(name), shape, (count) => draw(count, -4)),
      );
    };
    return {
      ...NO_WEIGHTS,
      has: (name) => entries.has(name),
      tensor: (name, shape) => {
        vector(name, shape);
        return NO_WEIGHTS.tensor(name, shape);
      },
      record: (vectors) => {
        for (const source of vectors)
          if (typeof source === 'object') for (const [name, length] of source) vector(name, [length].flat());
        return NO_WEIGHTS.record([]);
      },
      matrix: (names, rows, k, options) => {
        for (const [i, name] of names.entries()) {
          const [count, file] = [rows[i] as number, fileName(name)];
          const isPacked = format !== undefined && part === 'decoder' && /\.layers\./.test(name);
          const power = /embed_tokens/.test(name) ? 0 : powerOf(k) - 1;
          const plain = () => [tensor(file, [count, k], (size) => draw(size, power))];
          for (const source of isPacked
            ? packed(file.replace(/\.weight$/, ''), count, k, { format, power, draw })
            : plain())
            sources.push(source);
        }
        return NO_WEIGHTS.matrix(names, rows, k, options);
      },
    };
  };
  const weights = { tower: recorder('tower'), projector: recorder('projector'), decoder: recorder('decoder') };
  await buildParts(plan, weights, decoder, async () => undefined);
  return sources;
}

/** A 4-bit matrix [rows, k] of random nibbles about 8, whose values have a standard deviation of about 2^power. */
export function packed(
  name: string,
  rows: number,
  k: number,
  { format, power, draw }: { readonly format: Format; readonly power: number; readonly draw: Draw },
): TensorSource[] {
  const groups = k / GROUP;
  const words = (
    suffix: string,
    shape: readonly [number, number],
    fill: (words: Uint32Array) => void,
  ): TensorSource => ({
    ...{ name: `${name}.${suffix}`, dtype: 'I32', shape, byteLength: 4 * shape[0] * shape[1] },
    bytes: () => {
      const values = new Uint32Array(shape[0] * shape[1]);
      fill(values);
      return new Uint8Array(values.buffer);
    },
  });
  // The low bits of random numbers are evenly distributed.
  const nibbles = (values: Uint32Array): void => {
    const bits = draw(4 * values.length, 0);
    for (let i = 0; i < values.length; i++)
      for (let byte = 0; byte < 4; byte++)
        values[i] = (values[i] as number) | ((((bits[4 * i + byte] as number) & 127) * 2) << (8 * byte));
  };
  const scales = (suffix: string, shape: readonly [number, number], dtype: 'F16' | 'BF16'): TensorSource => ({
    ...{ name: `${name}.${suffix}`, dtype, shape, byteLength: 2 * shape[0] * shape[1] },
    // Even nibbles 0 to 14 and any have a standard deviation of about 4.6.
    bytes: () => encodeFloats(new Float32Array(shape[0] * shape[1]).fill(2 ** power / 4.6), dtype),
  });
  if (format === 'autoawq')
    return [
      words('qweight', [k, rows / 8], nibbles),
      words('qzeros', [groups, rows / 8], (values) => values.fill(0x88888888)),
      scales('scales', [groups, rows], 'F16'),
    ];
  const size = new Uint8Array(BigInt64Array.of(BigInt(rows), BigInt(k)).buffer);
  return [
    words('weight_packed', [rows, k / 8], nibbles),
    scales('weight_scale', [rows, groups], 'BF16'),
    { name: `${name}.weight_shape`, dtype: 'I64', shape: [2], byteLength: 16, bytes: () => size },
  ];
}
