// Checkpoints whose q, k and v (or gate and up) have different forms, as ignore lists leave them: they have the numbers of the
// reference, which dequantizes module by module. And modules that lack one of their tensors, which are refused by name.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { load } from '../../src';
import { encodeFloats } from '../../src/checkpoint/half';
import { readSafetensorsHeader, readTensor } from '../../src/checkpoint/safetensors';
import { openWeights } from '../../src/models/weights';
import { floats } from '../../src/ops/run';
import { dequantize } from '../../src/ops/weights';
import { nmse } from '../../testing/ops/tolerance';
import { errorOf } from '../image/fixtures';
import { changeJson, changeTensors, type Stored, withCopy } from '../support/checkpoint';
import { withoutLeak } from '../support/leaks';

const FIXTURES = join(__dirname, '../../../spec/fixtures/awq');
const LLM = 'llm/model.safetensors';
/** The tolerance of quantized_load.spec: logits after three layers, of which 2.5e-8 comes from 4-bit products elsewhere. */
const EXACT_NMSE = 1e-6;
const IDS = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) % 424);
const MODULES = ['q_proj', 'k_proj', 'v_proj', 'o_proj'].map((name) => `self_attn.${name}`);
const MLP = ['gate_proj', 'up_proj', 'down_proj'].map((name) => `mlp.${name}`);

async function logitsOf(folder: string): Promise<Float32Array> {
  const model = await load(folder);
  const { decoder } = model;
  const [x, cache] = [decoder.embed(IDS), decoder.cache('f32', IDS.length)];
  const pace = async (): Promise<void> => undefined;
  const y = await decoder.forward(x, [{ cache, positions: [...IDS.keys()] }], { pace });
  const logits = decoder.logits(y, true).slice();
  for (const tensor of [x, y, cache]) tensor.dispose();
  model.dispose();
  return logits;
}

/** Replaces the 4-bit modules that `isPlain` names with what the reference dequantizes them to. */
function dequantizeSome(folder: string, isPlain: (module: string) => boolean, type: 'F32' | 'F16' = 'F32'): void {
  const expected = readSafetensorsHeader(join(folder, 'dequantized.safetensors'));
  changeTensors(join(folder, LLM), (tensors) => {
    for (const entry of expected) {
      const module = entry.name.replace(/\.weight$/, '');
      if (!isPlain(module)) continue;
      for (const name of [...tensors.keys()])
        if (name.startsWith(`${module}.`) && !name.endsWith('.bias')) tensors.delete(name);
      const values = readTensor(entry);
      tensors.set(entry.name, { dtype: type, shape: entry.shape, data: encodeFloats(values, type) });
    }
  });
}

describe.each(['checkpoint-gemm', 'checkpoint-pack-quantized'])('%s', (name) => {
  const folder = join(FIXTURES, name);
  let expected: Float32Array;
  beforeAll(async () => {
    expected = await withCopy(folder, (copy) => {
      dequantizeSome(copy, () => true);
      return logitsOf(copy);
    });
  });

  it.each([...MODULES, ...MLP])('has the same numbers with %s in full precision', async (module) => {
    await withCopy(folder, async (copy) => {
      dequantizeSome(copy, (one) => one.endsWith(module));
      expect(nmse(await logitsOf(copy), expected)).toBeLessThanOrEqual(EXACT_NMSE);
    });
  });

  it('has the same numbers with v_proj and up_proj in f16', async () => {
    const isHalf = (module: string): boolean => /(v|up)_proj$/.test(module);
    await withCopy(folder, async (copy) => {
      dequantizeSome(copy, isHalf, 'F16');
      const found = await logitsOf(copy);
      dequantizeSome(copy, (module) => !isHalf(module));
      expect(nmse(found, await logitsOf(copy))).toBeLessThanOrEqual(EXACT_NMSE);
    });
  });

  it('has the same numbers with every second module in full precision', async () => {
    await withCopy(folder, async (copy) => {
      let count = 0;
      dequantizeSome(copy, () => count++ % 2 === 0);
      expect(nmse(await logitsOf(copy), expected)).toBeLessThanOrEqual(EXACT_NMSE);
    });
  });

  it('leaves no tensor', async () => {
    const twice = (copy: string) => withoutLeak(async () => (await load(copy)).dispose());
    await withCopy(folder, async (copy) => {
      dequantizeSome(copy, (one) => one.endsWith('v_proj'));
      (await load(copy)).dispose();
      await twice(copy);
    });
  });
});

it('stacks 4-bit modules whose scales have different types', async () => {
  const folder = join(FIXTURES, 'checkpoint-gemm');
  const expected = await logitsOf(folder);
  await withCopy(folder, async (copy) => {
    changeTensors(join(copy, LLM), (tensors) => {
      const name = 'model.layers.0.self_attn.k_proj.scales';
      const entry = readSafetensorsHeader(join(folder, LLM)).find((one) => one.name === name);
      if (entry === undefined) throw new Error(`no ${name}`);
      const { buffer } = readTensor(entry);
      tensors.set(name, { dtype: 'F32', shape: entry.shape, data: new Uint8Array(buffer) });
    });
    expect(nmse(await logitsOf(copy), expected)).toBeLessThanOrEqual(EXACT_NMSE);
  });
});

it('stacks 8-bit parts and plain ones, as a tower may hold them', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-'));
  try {
    const bytes = (array: ArrayBufferView): Uint8Array =>
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    const q = Int8Array.from({ length: 32 * 64 }, (_, i) => ((i * 7) % 255) - 127);
    const v = Float32Array.from({ length: 32 * 64 }, (_, i) => Math.fround(Math.sin(i)));
    writeFileSync(
      join(folder, 'model.safetensors'),
      Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{}')]),
    );
    changeTensors(join(folder, 'model.safetensors'), (tensors) => {
      tensors.set('q.weight', { dtype: 'I8', shape: [32, 64], data: bytes(q) });
      tensors.set('q.weight_scale', { dtype: 'F32', shape: [32, 1], data: bytes(new Float32Array(32).fill(0.25)) });
      tensors.set('v.weight', { dtype: 'F32', shape: [32, 64], data: bytes(v) });
    });
    const weights = openWeights(folder);
    const matrix = weights.matrix(['q.weight', 'v.weight'], [32, 32], 64);
    weights.close();
    const all = dequantize(matrix);
    expect(Array.from(floats(all))).toEqual([...Array.from(q, (value) => value * 0.25), ...v]);
    all.dispose();
    weights.dispose();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe('a module that lacks one of its tensors is refused by name', () => {
  const rows: readonly (readonly [folder: string, tensor: string])[] = [
    ...['qweight', 'qzeros', 'scales'].map((part) => ['checkpoint-gemm', `self_attn.v_proj.${part}`] as const),
    ...['weight_packed', 'weight_scale', 'weight_shape'].flatMap((part) => [
      ['checkpoint-pack-quantized', `self_attn.k_proj.${part}`] as const,
      ['checkpoint-pack-quantized', `mlp.up_proj.${part}`] as const,
    ]),
    // Of two groups in the config only that of the MLPs is asymmetric: no other tensor says that zero points are missing.
    ['checkpoint-pack-quantized', 'mlp.up_proj.weight_zero_point'],
    ['checkpoint-pack-quantized', 'mlp.down_proj.weight_zero_point'],
  ];
  it.each(rows)('%s: %s', async (name, tensor) => {
    await withCopy(join(FIXTURES, name), async (copy) => {
      changeTensors(join(copy, LLM), (tensors: Map<string, Stored>) => {
        if (!tensors.delete(`model.layers.0.${tensor}`)) throw new Error(`no ${tensor}`);
      });
      const error = await withoutLeak(() => errorOf(() => load(copy)));
      const [module = ''] = /^.*(?=\.)/.exec(`model.layers.0.${tensor}`) ?? [];
      expect([error.code, error.message]).toEqual(['ERR_WEIGHT_MISSING', expect.stringContaining(module)]);
    });
  });
});

describe('what a quantization config says', () => {
  const GEMM = { bits: 4, group_size: 32, zero_point: true };
  const weights = { num_bits: 4, group_size: 32, symmetric: true };
  const packed = (more: Record<string, unknown> = {}, given: Record<string, unknown> = {}) => {
    const one = (targets: string[], symmetric: boolean) => ({ targets, weights: { ...weights, symmetric, ...more } });
    const groups = { a: one(['re:.*self_attn'], true), b: one(['Linear'], false) };
    return { quant_method: 'compressed-tensors', config_groups: groups, ...given };
  };
  const said = async (name: string, quantization: Record<string, unknown>, file = 'llm/config.json') =>
    withCopy(join(FIXTURES, name), async (copy) => {
      changeJson(join(copy, 'llm/config.json'), { quantization_config: undefined });
      changeJson(join(copy, file), { quantization_config: quantization });
      return (await load(copy).then(
        (model) => model.dispose(),
        (error: unknown) => error,
      )) as undefined | Error;
    });

  it.each([
    ['checkpoint-gemm', { ...GEMM, quant_method: 'AWQ', version: 'GEMM' }],
    ['checkpoint-gemm', { ...GEMM, quant_method: 'awq_marlin', backend: 'auto', modules_to_not_convert: 7 }],
    ['checkpoint-gemm', { quant_method: 'awq', w_bit: 4, q_group_size: 32, damp_percent: null }],
    ['checkpoint-pack-quantized', packed({ type: 'INT', strategy: 'Group', actorder: 'Weight' })],
    [
      'checkpoint-pack-quantized',
      packed({}, { quant_method: 'compressed_tensors', format: 'Pack_Quantized', ignore: null }),
    ],
    [
      'checkpoint-pack-quantized',
      packed({ observer: 'mse', scale_dtype: 'torch.float16' }, { quantization_status: 5 }),
    ],
  ])('is read in every spelling: %s %j', async (name, quantization) => {
    expect(await said(name, quantization)).toBeUndefined();
    expect(await said(name, quantization, 'config.json')).toBeUndefined();
  });

  it.each([
    ['checkpoint-gemm', { ...GEMM, quant_method: 'bitsandbytes' }, 'ERR_QUANTIZATION_UNSUPPORTED', 'quant_method'],
    [
      'checkpoint-gemm',
      { ...GEMM, quant_method: 'awq', zero_point: false },
      'ERR_QUANTIZATION_UNSUPPORTED',
      'zero_point',
    ],
    ['checkpoint-gemm', { ...GEMM, quant_method: 'awq', group_size: 2 ** 31 }, 'ERR_CONFIG_INVALID', 'group_size'],
    ['checkpoint-pack-quantized', packed({ actorder: 'sideways' }), 'ERR_CONFIG_INVALID', 'actorder'],
    ['checkpoint-pack-quantized', packed({ dynamic: true }), 'ERR_QUANTIZATION_UNSUPPORTED', 'dynamic'],
    [
      'checkpoint-pack-quantized',
      packed({}, { kv_cache_scheme: {} }),
      'ERR_QUANTIZATION_UNSUPPORTED',
      'kv_cache_scheme',
    ],
  ])('is refused by name: %s %j', async (name, quantization, code, key) => {
    for (const file of ['llm/config.json', 'config.json'])
      expect(await said(name, quantization, file)).toMatchObject({ code, message: expect.stringContaining(`${key}"`) });
  });
});

it('a regular expression of the config that backtracks without end is an error, not a hang', async () => {
  await withCopy(join(FIXTURES, 'checkpoint-pack-quantized'), async (copy) => {
    const weights = { num_bits: 4, type: 'int', strategy: 'group', group_size: 32, symmetric: true };
    const group = (target: string) => ({ targets: [target], weights });
    changeJson(join(copy, 'llm/config.json'), {
      quantization_config: {
        quant_method: 'compressed-tensors',
        format: 'pack-quantized',
        config_groups: { a: group('re:(([a-z_0-9.])*)*!'), b: group('re:.*mlp.*') },
      },
    });
    const error = await errorOf(() => load(copy));
    expect([error.code, error.message]).toEqual(['ERR_CONFIG_INVALID', expect.stringContaining('config_groups')]);
  });
}, 60_000);
