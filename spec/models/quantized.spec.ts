// Which format a module is in, and everything that is refused: by names, types and shapes of tensors that exist only as
// entries, and by configs as they are found in published checkpoints.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isQuantized, isUniform, quantizedModule, storedGroup as stored } from '../../src/checkpoint/quantized';
import { parseQuantization, type QuantizationConfig, readQuantization } from '../../src/checkpoint/quantized_config';
import { settingsOf } from '../../src/checkpoint/quantized_targets';
import type { TensorDtype, TensorEntry } from '../../src/checkpoint/safetensors';
import { SparseVilaError } from '../../src/errors';
import { configReader, type Json } from '../../src/json';

type Given = Readonly<Record<string, readonly [TensorDtype, ...number[]]>>;

/** Entries by name, without files behind them. */
function finder(given: Given): (name: string) => TensorEntry | undefined {
  return (name) => {
    const [dtype, ...shape] = given[name] ?? [];
    return dtype && { name, file: 'model.safetensors', dtype, shape, offset: 0, bytes: 0 };
  };
}

function codeAndMessage(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof SparseVilaError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return 'no error';
}

const gemm = (k: number, rows: number, group: number): Given => ({
  'x.qweight': ['I32', k, rows / 8],
  'x.qzeros': ['I32', k / group, rows / 8],
  'x.scales': ['F16', k / group, rows],
});
const packed = (rows: number, k: number, group: number): Given => ({
  'x.weight_packed': ['I32', rows, Math.ceil(k / 8)],
  'x.weight_scale': ['BF16', rows, k / group],
  'x.weight_shape': ['I64', 2],
});
const gptq = (rows: number, k: number, group: number): Given => ({
  'x.qweight': ['I32', k / 8, rows],
  'x.qzeros': ['I32', k / group, rows / 8],
  'x.scales': ['F16', k / group, rows],
  'x.g_idx': ['I32', k],
});
const config = (more: Partial<QuantizationConfig>): QuantizationConfig => ({
  file: 'config.json',
  method: 'awq',
  layout: 'gemm',
  groupSizes: [],
  symmetric: undefined,
  activationOrder: false,
  ...more,
});

type Row = readonly [format: string, given: Given, rows: number, k: number, group: number, storedGroup: number];
const gemv = (words: number): Given => ({
  'x.qweight': ['I32', 1024, 128],
  'x.qzeros': ['I32', 1024, words],
  'x.scales': ['F16', 1024, 8 * words],
});
const fast = (words: number, zeros: string): Given => ({
  'x.qweight': ['I16', 256, 1024],
  [zeros]: ['F16', 8 * words, 1024],
  'x.scales': ['F16', 8 * words, 1024],
});

describe('a module', () => {
  // Some matrices are square: their qweight has the same shape in gemm and gemv.
  const rows: readonly Row[] = [
    ['awq-gemm', gemm(1024, 1024, 128), 1024, 1024, 128, 128],
    ['awq-gemm', gemm(256, 64, 32), 64, 256, 32, 32],
    ['awq-gemm', gemm(512, 64, 256), 64, 512, 256, 128],
    ['awq-gemv', gemv(1), 1024, 1024, 128, 128],
    ['awq-gemv', gemv(2), 1024, 1024, 64, 64],
    ['awq-gemv', gemv(4), 1024, 1024, 32, 32],
    ['awq-gemv-fast', fast(1, 'x.qzeros'), 1024, 1024, 128, 128],
    ['awq-gemv-fast', fast(2, 'x.scaled_zeros'), 1024, 1024, 64, 64],
    ['pack-quantized', packed(1024, 1024, 128), 1024, 1024, 128, 128],
    ['pack-quantized', packed(1024, 1024, 1024), 1024, 1024, 1024, 128],
    ['pack-quantized', packed(20, 100, 100), 20, 100, 100, 32],
    ['gptq', gptq(1024, 1024, 128), 1024, 1024, 128, 128],
    ['gptq', gptq(32, 256, 64), 32, 256, 64, 64],
  ];
  test.each(rows)('is %s by its shapes: %j', (format, given, outputs, k, group, storedGroup) => {
    const module = quantizedModule(finder(given), 'x', outputs, k);
    expect(module).toMatchObject({ name: 'x', format, rows: outputs, k, group });
    expect(stored(module)).toBe(storedGroup);
  });

  test('of GPTQ has the version that the config says', () => {
    const find = finder(gptq(32, 256, 64));
    const of = (layout: QuantizationConfig['layout']): string =>
      quantizedModule(find, 'x', 32, 256, config({ method: 'gptq', layout })).format;
    expect([of('gptq'), of('gptq_v2')]).toEqual(['gptq', 'gptq-v2']);
  });

  test('whose gemv zeros fit two group sizes has the one that the config says', () => {
    // 8 groups of 128 and 4 groups of 256 both need one word.
    const module = quantizedModule(finder(gemv(1)), 'x', 1024, 1024, config({ groupSizes: [256] }));
    expect(module.group).toBe(256);
  });

  test('is 4-bit when its packed weights are there', () => {
    expect(isQuantized(finder(gemm(64, 64, 32)), 'x')).toBe(true);
    expect(isQuantized(finder(packed(64, 64, 32)), 'x')).toBe(true);
    expect(isQuantized(finder({ 'x.weight': ['F16', 64, 64] }), 'x')).toBe(false);
  });
});

describe('a module is refused', () => {
  const base = gemm(256, 64, 64);
  const without = (given: Given, name: string): Given =>
    Object.fromEntries(Object.entries(given).filter(([key]) => key !== name));
  const rows: readonly (readonly [string, Given, RegExp, QuantizationConfig?])[] = [
    ['without scales', without(base, 'x.scales'), /^ERR_WEIGHT_MISSING: .*"x\.scales"/],
    ['without zeros', without(base, 'x.qzeros'), /^ERR_WEIGHT_MISSING: .*"x\.qzeros"/],
    ['without scales of its own kind', without(packed(64, 256, 64), 'x.weight_scale'), /MISSING.*"x\.weight_scale"/],
    [
      'without the zero points of an asymmetric config',
      packed(64, 256, 64),
      /^ERR_WEIGHT_MISSING.*config\.json says asymmetric/,
      config({ layout: 'pack-quantized', symmetric: false }),
    ],
    ['in two 4-bit forms', { ...base, ...packed(64, 256, 64) }, /^ERR_WEIGHT_FORMAT.*qweight and weight_packed/],
    ['packed and plain at once', { ...base, 'x.weight': ['F16', 64, 256] }, /^ERR_WEIGHT_FORMAT.*weight and qweight/],
    ['of 8 bits (AutoAWQ)', { ...base, 'x.qweight': ['I32', 256, 16] }, /^ERR_WEIGHT_SHAPE.*than 4 bits/],
    ['of 8 bits (GPTQ)', { ...gptq(64, 256, 64), 'x.qweight': ['I32', 64, 64] }, /^ERR_WEIGHT_SHAPE.*than 4 bits/],
    ['of other sizes', gemm(128, 64, 64), /^ERR_WEIGHT_SHAPE.*64 outputs and 256 inputs.*I32 \[128,8\]/],
    [
      'with zeros of another shape',
      { ...base, 'x.qzeros': ['I32', 2, 8] },
      /^ERR_WEIGHT_SHAPE.*\[4,8\].*"x\.qzeros".*\[2,8\]/,
    ],
    ['with a g_idx of another length', { ...gptq(64, 256, 64), 'x.g_idx': ['I32', 64] }, /SHAPE.*\[256\].*"x\.g_idx"/],
    [
      'with a weight_shape of three',
      { ...packed(64, 256, 64), 'x.weight_shape': ['I64', 3] },
      /SHAPE.*"x\.weight_shape"/,
    ],
    ['packed as bytes', { ...packed(64, 256, 64), 'x.weight_packed': ['U8', 64, 128] }, /^ERR_WEIGHT_DTYPE.*U8/],
    ['packed as floats', { ...base, 'x.qweight': ['F32', 256, 8] }, /^ERR_WEIGHT_DTYPE.*F32/],
    ['with float64 scales', { ...base, 'x.scales': ['F64', 4, 64] }, /^ERR_WEIGHT_DTYPE.*"x\.scales".*F64/],
    ['with float zeros', { ...base, 'x.qzeros': ['F16', 4, 8] }, /^ERR_WEIGHT_DTYPE.*I32 for "x\.qzeros"/],
    ['with int64 group indices', { ...gptq(64, 256, 64), 'x.g_idx': ['I64', 256] }, /^ERR_WEIGHT_DTYPE.*"x\.g_idx"/],
    ['in groups of 16', gemm(256, 64, 16), /^ERR_WEIGHT_FORMAT.*groups of 16/],
    ['in groups that do not divide', { ...base, 'x.scales': ['F16', 3, 64] }, /^ERR_WEIGHT_SHAPE.*no group size/],
    [
      'in groups unlike the config',
      base,
      /^ERR_WEIGHT_SHAPE.*groups of 64.*config\.json says 128/,
      config({ groupSizes: [128] }),
    ],
    [
      'with activation order and no g_idx',
      without(gptq(64, 256, 64), 'x.g_idx'),
      /^ERR_WEIGHT_FORMAT.*desc_act/,
      config({ method: 'gptq', layout: 'gptq', activationOrder: true }),
    ],
  ];
  for (const [what, given, message, settings] of rows)
    test(what, () => {
      expect(codeAndMessage(() => stored(quantizedModule(finder(given), 'x', 64, 256, settings)))).toMatch(message);
    });
});

describe('a stack', () => {
  const named = (name: string, given: Given): Given =>
    Object.fromEntries(Object.entries(given).map(([key, value]) => [key.replace('x.', `${name}.`), value]));
  const uniform = (q: Given, k: Given): boolean => {
    const find = finder({ ...named('q', q), ...named('k', k) });
    return isUniform([quantizedModule(find, 'q', 64, 256), quantizedModule(find, 'k', 32, 256)]);
  };

  test('is uniform when its parts have one format, group size and type of scales', () => {
    expect(uniform(gemm(256, 64, 64), gemm(256, 32, 64))).toBe(true);
    expect(uniform(gemm(256, 64, 64), gptq(32, 256, 64))).toBe(false);
    expect(uniform(gemm(256, 64, 64), gemm(256, 32, 32))).toBe(false);
    expect(uniform(gemm(256, 64, 64), { ...gemm(256, 32, 64), 'x.scales': ['F32', 4, 32] })).toBe(false);
  });
});

/** Groups of 128 for one target, of 32 for the rest. */
const grouped = (target: string): Json =>
  compressed({
    config_groups: {
      a: { targets: [target], weights: { ...weights, group_size: 128 } },
      b: { targets: ['Linear'], weights },
    },
  });
const ruled = {
  ...{ quant_method: 'gptq', bits: 4, group_size: 128, desc_act: false },
  dynamic: {
    '-:.*visual.*': {},
    '+:.*\\.3\\..*up_proj': { group_size: 64 },
    '.*layers\\.3\\.': { group_size: 32, desc_act: true },
  },
};
const parse = (json: Json): QuantizationConfig => parseQuantization(configReader(json, 'config.json'));
const weights = { num_bits: 4, type: 'int', strategy: 'group', group_size: 32, symmetric: true, dynamic: false };
const compressed = (changes: Json = {}, group: Json = {}, inner: Json = {}): Json => ({
  quant_method: 'compressed-tensors',
  format: 'pack-quantized',
  config_groups: { group_0: { targets: ['Linear'], weights: { ...weights, ...inner }, ...group } },
  ...changes,
});

const FLOAT = { num_bits: 8, type: 'float', strategy: 'channel', symmetric: true, dynamic: false };
const EIGHT = {
  weights: { num_bits: 8, type: 'int', strategy: 'channel' },
  input_activations: { num_bits: 8, type: 'int', dynamic: true, strategy: 'token' },
};

describe('a config', () => {
  test.each<readonly [string, Json, Partial<QuantizationConfig>]>([
    [
      'of AutoAWQ',
      {
        quant_method: 'awq',
        bits: 4,
        group_size: 128,
        zero_point: true,
        version: 'GEMM',
        modules_to_not_convert: ['visual'],
      },
      { method: 'awq', layout: 'gemm', groupSizes: [128], symmetric: false },
    ],
    [
      'of AutoAWQ, older',
      { w_bit: 4, q_group_size: 64, version: 'Gemv_Fast' },
      { layout: 'gemv_fast', groupSizes: [64] },
    ],
    ['of compressed-tensors', compressed(), { layout: 'pack-quantized', groupSizes: [32], symmetric: true }],
    ['without quant_method', compressed({ quant_method: undefined }), { method: 'compressed-tensors' }],
    [
      'with a format per group',
      compressed({ format: 'mixed-precision' }, { format: 'pack-quantized' }),
      { groupSizes: [32] },
    ],
    ['of whole rows', compressed({}, {}, { strategy: 'channel', group_size: null }), { groupSizes: [-1] }],
    ['with ordered rounding', compressed({}, {}, { actorder: 'weight' }), { activationOrder: false }],
    ['with activation order', compressed({}, {}, { actorder: 'group' }), { activationOrder: true }],
    [
      'with two groups',
      compressed({
        config_groups: { a: { weights }, b: { weights: { ...weights, group_size: 128, symmetric: false } } },
      }),
      { groupSizes: [32, 128], symmetric: undefined },
    ],
    [
      'of GPTQ',
      { quant_method: 'gptq', bits: 4, group_size: 128, desc_act: false, sym: true },
      { layout: 'gptq', symmetric: true },
    ],
    [
      'of GPTQ v2',
      { quant_method: 'gptq', bits: 4, group_size: -1, desc_act: true, checkpoint_format: 'gptq_v2' },
      { layout: 'gptq_v2', groupSizes: [-1], activationOrder: true },
    ],
    [
      'of fp8 in blocks',
      {
        quant_method: 'fp8',
        activation_scheme: 'dynamic',
        fmt: 'e4m3',
        weight_block_size: [128, 64],
        modules_to_not_convert: ['lm_head'],
      },
      { method: 'fp8', layout: 'float-quantized', block: [128, 64] },
    ],
    ['of fp8 without blocks', { quant_method: 'fp8', weight_block_size: null }, { method: 'fp8', block: undefined }],
    ['of fbgemm', { quant_method: 'fbgemm_fp8', activation_scale_ub: 1200 }, { method: 'fp8' }],
    ['of modelopt', { quant_method: 'modelopt', quant_algo: 'FP8', config_groups: {} }, { method: 'fp8' }],
    [
      'of float-quantized',
      compressed(
        { format: 'float-quantized' },
        { input_activations: { num_bits: 8, type: 'float', dynamic: true } },
        { ...FLOAT },
      ),
      { layout: 'float-quantized', groupSizes: [] },
    ],
    [
      'of 4 bits beside 8-bit floats',
      compressed({
        format: 'mixed-precision',
        config_groups: { a: { format: 'float-quantized', weights: FLOAT }, b: { format: 'pack-quantized', weights } },
      }),
      { layout: 'pack-quantized', groupSizes: [32], symmetric: true },
    ],
  ])('%s is read', (_, json, expected) => expect(parse(json)).toMatchObject(expected));

  test.each<readonly [string, Json, string]>([
    ['8 bits (AutoAWQ)', { quant_method: 'awq', bits: 8 }, 'bits'],
    ['8 bits (GPTQ)', { quant_method: 'gptq', bits: 8, group_size: 128 }, 'bits'],
    ['8 bits (compressed-tensors)', compressed({}, {}, { num_bits: 8 }), 'num_bits'],
    ['no zero points', { quant_method: 'awq', bits: 4, zero_point: false }, 'zero_point'],
    ['marlin', { quant_method: 'awq', bits: 4, version: 'marlin' }, 'version'],
    ['marlin (GPTQ)', { quant_method: 'gptq', bits: 4, checkpoint_format: 'marlin' }, 'checkpoint_format'],
    ['fp8 of another kind', { quant_method: 'fp8', fmt: 'e5m2' }, 'fmt'],
    ['nvfp4 (modelopt)', { quant_method: 'modelopt', quant_algo: 'NVFP4' }, 'quant_algo'],
    [
      'int-quantized beside 4 bits',
      compressed({ config_groups: { a: { weights }, b: { format: 'int-quantized', ...EIGHT } } }),
      'config_groups',
    ],
    ['bitsandbytes', { quant_method: 'bitsandbytes', load_in_4bit: true }, 'quant_method'],
    ['int-quantized', compressed({ format: 'int-quantized' }), 'format'],
    ['nvfp4', compressed({ format: 'nvfp4-pack-quantized' }), 'format'],
    ['float weights', compressed({}, {}, { type: 'float' }), 'type'],
    ['quantized activations', compressed({}, { input_activations: { num_bits: 8 } }), 'input_activations'],
    ['a quantized cache', compressed({ kv_cache_scheme: { num_bits: 8 } }), 'kv_cache_scheme'],
    ['rotations', compressed({ transform_config: { config_groups: {} } }), 'transform_config'],
    ['sparse weights', compressed({ sparsity_config: { format: 'sparse-24-bitmask' } }), 'sparsity_config.format'],
    ['one scale per tensor', compressed({}, {}, { strategy: 'tensor' }), 'strategy'],
  ])('of %s is refused by name', (_, json, key) => {
    const text = codeAndMessage(() => parse(json));
    expect(text).toMatch(/^ERR_QUANTIZATION_UNSUPPORTED: config\.json: expected/);
    expect(text).toContain(`${key}"`);
  });

  test.each<readonly [string, Json, string]>([
    ['a group size of 0', { quant_method: 'awq', bits: 4, group_size: 0 }, 'group_size'],
    ['no groups', compressed({ config_groups: {} }), 'config_groups'],
    ['a block of one size', { quant_method: 'fp8', weight_block_size: [128] }, 'weight_block_size'],
    ['a rule that is no object', { quant_method: 'gptq', bits: 4, dynamic: { a: 8 } }, 'a'],
    ['a group without weights', compressed({ config_groups: { a: {} } }), 'config_groups'],
    ['no method', { bits: 4 }, 'quant_method'],
  ])('with %s is wrong', (_, json, key) => {
    expect(codeAndMessage(() => parse(json))).toMatch(new RegExp(`^ERR_CONFIG_INVALID.*${key}`));
  });

  test.each<[string, Json, string, number[]]>([
    ['the class', compressed(), 'model.layers.0.mlp.up_proj', [32]],
    ...[
      'model.layers.0.mlp.up_proj',
      'language_model.model.layers.0.mlp.up_proj',
      'model.language_model.layers.0.mlp.up_proj',
    ].flatMap((file): [string, Json, string, number[]][] =>
      [
        'model.layers.0.mlp.up_proj',
        're:model\\.language_model\\.layers\\..*\\.mlp',
        're:language_model\\.model\\.layers.*up_proj$',
        're:.*mlp.*',
      ].map((target) => [target, grouped(target), file, [128]]),
    ),
    ['re:visual.*', grouped('re:visual.*'), 'model.visual.blocks.0.mlp.up_proj', [128]],
    ['re:model.visual.*', grouped('re:model.visual.*'), 'visual.blocks.0.mlp.up_proj', [128]],
    [
      'a tower of transformers 5',
      grouped('model.vision_tower.encoder.layers.0.q'),
      'vision_tower.vision_model.encoder.layers.0.q',
      [128],
    ],
    [
      'a tower of transformers 4',
      grouped('vision_tower.vision_model.encoder.layers.0.q'),
      'model.vision_tower.encoder.layers.0.q',
      [128],
    ],
    ['another module', grouped('re:.*self_attn.*'), 'model.layers.0.mlp.up_proj', [32]],
    ['the first rule of GPTQ', ruled, 'model.layers.3.mlp.up_proj', [64]],
    ['the second rule of GPTQ', ruled, 'model.language_model.layers.3.mlp.down_proj', [32]],
    ['no rule of GPTQ', ruled, 'model.layers.0.mlp.up_proj', [128]],
  ])('targets %s', (_, json, module, sizes) => expect(settingsOf(parse(json), module).groupSizes).toEqual(sizes));

  test('lies in config.json, in its text_config, or in the older files', () => {
    const folder = mkdtempSync(join(tmpdir(), 'sparsevila-'));
    const awq = { quant_method: 'awq', bits: 4, group_size: 128, version: 'gemm' };
    const put = (name: string, json: Json): void => writeFileSync(join(folder, name), JSON.stringify(json));
    try {
      expect(readQuantization(folder)).toBeUndefined();
      put('quantize_config.json', { bits: 4, group_size: 32, desc_act: false });
      expect(readQuantization(folder)).toMatchObject({ method: 'gptq', groupSizes: [32] });
      put('quant_config.json', { w_bit: 4, q_group_size: 64, zero_point: true, version: 'GEMM' });
      expect(readQuantization(folder)).toMatchObject({ method: 'awq', groupSizes: [64] });
      put('config.json', { text_config: { quantization_config: awq } });
      expect(readQuantization(folder)).toMatchObject({ method: 'awq', groupSizes: [128] });
      put('config.json', { compression_config: compressed() });
      expect(readQuantization(folder)).toMatchObject({ method: 'compressed-tensors' });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
