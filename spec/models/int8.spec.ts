// Weights in 8 bits as a checkpoint has them: which are read and with what result, and everything that is refused: modules by
// tensors that exist only as entries, configs as compressed-tensors writes them, values in small files.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeFloats, type FloatDtype } from '../../src/checkpoint/half';
import { int8Module } from '../../src/checkpoint/quantized';
import { parseQuantization, type QuantizationConfig } from '../../src/checkpoint/quantized_config';
import type { TensorDtype, TensorEntry } from '../../src/checkpoint/safetensors';
import { type TensorSource, writeSafetensors } from '../../src/checkpoint/safetensors_writer';
import { SparseVilaError } from '../../src/errors';
import { configReader, type Json } from '../../src/json';
import { openWeights, type Weights } from '../../src/models/weights';
import { linear } from '../../src/ops/linear';
import { float32, floats } from '../../src/ops/run';
import { dequantize } from '../../src/ops/weights';
import { linearReference } from '../../testing/ops/references/linear';
import { nmse } from '../../testing/ops/tolerance';
import { atLevel, levels } from '../ops/levels';

/** One plane of 8-bit activations: 5e-5 for Gaussian ones. */
const W8A8_NMSE = 2e-4;

type Given = Readonly<Record<string, readonly [TensorDtype, ...number[]]>>;

/** Entries by name, without files behind them. */
function finder(given: Given): (name: string) => TensorEntry | undefined {
  return (name) => {
    const [dtype, ...shape] = given[name] ?? [];
    return dtype && { name, file: 'model.safetensors', dtype, shape, offset: 0, bytes: 0 };
  };
}

async function codeAndMessage(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof SparseVilaError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return 'no error';
}

const int8 = (name: string, rows = 64, k = 32): Given => ({
  [`${name}.weight`]: ['I8', rows, k],
  [`${name}.weight_scale`]: ['F32', rows, 1],
});
const read = (given: Given, config?: QuantizationConfig) =>
  codeAndMessage(() => int8Module(finder(given), 'x', 64, 32, config));

describe('a module in 8 bits', () => {
  test.each<readonly [string, Given]>([
    ['scales [out, 1]', int8('x')],
    ['scales [out]', { ...int8('x'), 'x.weight_scale': ['F16', 64] }],
    ['bf16 scales', { ...int8('x'), 'x.weight_scale': ['BF16', 64, 1] }],
  ])('is read: %s', async (_, given) => expect(await read(given)).toBe('no error'));

  test.each<readonly [string, Given, RegExp]>([
    ['no scales', { 'x.weight': ['I8', 64, 32] }, /^ERR_WEIGHT_MISSING: .*"x\.weight_scale"/],
    ['one scale', { ...int8('x'), 'x.weight_scale': ['F32', 1] }, /^ERR_WEIGHT_SHAPE: .*\[64,1\] or \[64\].*\[1\]/],
    ['scales of groups', { ...int8('x'), 'x.weight_scale': ['F32', 64, 2] }, /^ERR_WEIGHT_SHAPE: .*weight_scale/],
    ['scales of another type', { ...int8('x'), 'x.weight_scale': ['F64', 64, 1] }, /^ERR_WEIGHT_DTYPE: .*F64/],
    ['another shape', int8('x', 64, 16), /^ERR_WEIGHT_SHAPE: .*\[64,32\] for "x\.weight", received \[64,16\]/],
    ['zero points', { ...int8('x'), 'x.weight_zero_point': ['I8', 64, 1] }, /FORMAT: .*"x\.weight_zero_point" is not/],
    ['fixed activation scales', { ...int8('x'), 'x.input_scale': ['F32', 1] }, /FORMAT: .*"x\.input_scale" is not/],
  ])('is refused: %s', async (_, given, message) => expect(await read(given)).toMatch(message));

  test('disagrees with a config of another format', async () => {
    const config = parse(compressed({ format: 'pack-quantized' }, { num_bits: 4 }, null));
    expect(await read(int8('x'), config)).toMatch(/^ERR_WEIGHT_FORMAT: .*config\.json says pack-quantized/);
    expect(await read(int8('x'), parse(compressed()))).toBe('no error');
  });
});

const parse = (json: Json): QuantizationConfig => parseQuantization(configReader(json, 'config.json'));
/** A config as llm-compressor writes it for W8A8, with changes to the whole, to the weights and to the activations. */
const compressed = (changes: Json = {}, weights: Json = {}, inputs: Json | null = {}, group: Json = {}): Json => ({
  quant_method: 'compressed-tensors',
  format: 'int-quantized',
  config_groups: {
    group_0: {
      targets: ['Linear'],
      weights: { num_bits: 8, type: 'int', symmetric: true, strategy: 'channel', dynamic: false, ...weights },
      input_activations: inputs && {
        num_bits: 8,
        type: 'int',
        symmetric: true,
        strategy: 'token',
        dynamic: true,
        ...inputs,
      },
      output_activations: null,
      ...group,
    },
  },
  ...changes,
});

describe('a config', () => {
  test('of int-quantized is read', () => {
    expect(parse(compressed())).toMatchObject({ layout: 'int-quantized', groupSizes: [], symmetric: true });
    const perGroup = compressed({ format: 'mixed-precision' }, {}, {}, { format: 'int-quantized' });
    expect(parse(perGroup)).toMatchObject({ layout: 'int-quantized' });
  });

  test.each<readonly [string, Json, string]>([
    ['4-bit weights', compressed({}, { num_bits: 4 }), 'format'],
    ['float weights', compressed({}, { type: 'float' }), 'type'],
    ['one scale per tensor', compressed({}, { strategy: 'tensor' }), 'strategy'],
    ['scales of groups', compressed({}, { strategy: 'group', group_size: 128 }), 'strategy'],
    ['asymmetric weights', compressed({}, { symmetric: false }), 'symmetric'],
    ['dynamic weights', compressed({}, { dynamic: true }), 'dynamic'],
    ['weights only', compressed({}, {}, null), 'input_activations'],
    ['fixed activation scales', compressed({}, {}, { dynamic: false }), 'dynamic'],
    ['activations of 4 bits', compressed({}, {}, { num_bits: 4 }), 'num_bits'],
    ['one activation scale', compressed({}, {}, { strategy: 'tensor' }), 'strategy'],
    ['asymmetric activations', compressed({}, {}, { symmetric: false }), 'symmetric'],
    ['rounded outputs', compressed({}, {}, {}, { output_activations: { num_bits: 8 } }), 'output_activations'],
    ['a rounded cache', compressed({ kv_cache_scheme: { num_bits: 8 } }), 'kv_cache_scheme'],
  ])('of %s is refused by name', async (_, json, key) => {
    const text = await codeAndMessage(() => parse(json));
    expect(text).toMatch(/^ERR_QUANTIZATION_UNSUPPORTED: config\.json: expected/);
    expect(text).toContain(`${key}"`);
  });

  test('of two formats is refused', async () => {
    const four = { targets: ['Linear'], format: 'pack-quantized', weights: { num_bits: 4, strategy: 'channel' } };
    const { group_0: eight } = compressed().config_groups as Json;
    const groups = { config_groups: { four, eight } };
    expect(await codeAndMessage(() => parse(compressed(groups)))).toMatch(/UNSUPPORTED: .*groups of one format/);
  });
});

/** Deterministic values around 0. */
const wave = (count: number, step: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * i * step + step));

const bytes = (name: string, dtype: TensorDtype, shape: readonly number[], data: Uint8Array): TensorSource => {
  return { name, dtype, shape, byteLength: data.byteLength, bytes: () => data };
};

/** An int8 module that contains every value of the range. */
function int8Sources(
  name: string,
  rows: number,
  k: number,
  type: FloatDtype,
  flat: boolean,
  low = -127,
): TensorSource[] {
  const q = Int8Array.from({ length: rows * k }, (_, i) => low + ((i * 89) % (128 - low)));
  const scales = wave(rows, 0.7).map((value) => 0.002 + 0.001 * value ** 2);
  return [
    bytes(`${name}.weight`, 'I8', [rows, k], new Uint8Array(q.buffer)),
    bytes(`${name}.weight_scale`, type, flat ? [rows] : [rows, 1], encodeFloats(scales, type)),
  ];
}

/** Runs `work` on the weights of a folder with these tensors. */
async function withWeights<T>(
  tensors: readonly TensorSource[],
  work: (weights: Weights) => T,
  config?: Json,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-'));
  try {
    await writeSafetensors(join(folder, 'model.safetensors'), tensors);
    if (config !== undefined) writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
    const weights = openWeights(folder);
    try {
      return work(weights);
    } finally {
      weights.dispose();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** x W^T against the definition on the dequantized weights, at every level. */
function errors(w: ReturnType<Weights['matrix']>, k: number): number[] {
  const values = wave(5 * k, 0.31);
  const [x, none, plain] = [float32(values, [5, k]), float32([], [0]), dequantize(w)];
  const expected = linearReference(values, floats(plain), k);
  const found = levels().map((level) => {
    const y = atLevel(level, () => linear(x, w, none));
    const error = nmse(floats(y), expected);
    y.dispose();
    return error;
  });
  for (const tensor of [x, none, plain]) tensor.dispose();
  return found;
}

describe('products', () => {
  const rows = [21, 16, 40];
  test.each<readonly [FloatDtype, boolean]>([
    ['F32', false],
    ['F16', true],
    ['BF16', false],
  ])('of three stacked modules, %s scales, flat %p', async (type, flat) => {
    const names = ['q', 'k', 'v'];
    const tensors = names.flatMap((name, i) => int8Sources(name, rows[i] ?? 0, 37, type, flat));
    const config = { quantization_config: compressed() };
    await withWeights(
      tensors,
      (weights) => {
        const w = weights.matrix(
          names.map((name) => `${name}.weight`),
          rows,
          37,
        );
        weights.close();
        expect(w).toMatchObject({ type: 'int8', outputs: 77, inputs: 37 });
        for (const error of errors(w, 37)) expect(error).toBeLessThanOrEqual(W8A8_NMSE);
      },
      config,
    );
  });

  test('with the value -128, which compressed-tensors writes, multiply right at every level', async () => {
    await withWeights(int8Sources('x', 32, 64, 'F32', false, -128), (weights) => {
      const w = weights.matrix(['x.weight'], [32], 64);
      for (const error of errors(w, 64)) expect(error).toBeLessThanOrEqual(W8A8_NMSE);
    });
  });

  test.each([
    ['F32', Number.NaN],
    ['F16', Number.POSITIVE_INFINITY],
    ['BF16', Number.NEGATIVE_INFINITY],
  ] as const)('a scale that is not finite is refused by name: %s %p', async (type, value) => {
    const [weight, scale] = int8Sources('k', 8, 16, type, false);
    const scales = encodeFloats(new Float32Array(8).fill(value, 5, 6), type);
    const broken = [weight, bytes('k.weight_scale', type, [8, 1], scales), ...int8Sources('q', 8, 16, 'F32', false)];
    expect(scale?.byteLength).toBe(scales.length);
    const text = await codeAndMessage(() =>
      withWeights(broken as TensorSource[], (weights) => weights.matrix(['q.weight', 'k.weight'], [8, 8], 16)),
    );
    expect(text).toMatch(/^ERR_WEIGHT_VALUE: .*model\.safetensors: "k\.weight_scale" \[8,1\]: element 5/);
  });

  test('8-bit weights are refused where floats are needed', async () => {
    const text = await codeAndMessage(() =>
      withWeights(int8Sources('x', 8, 16, 'F32', false), (weights) => weights.tensor('x.weight', [8, 16])),
    );
    expect(text).toMatch(/^ERR_WEIGHT_DTYPE: .*"x\.weight", received I8/);
  });
});
