// Whole checkpoints with 4-bit modules beside plain ones: they answer like the same weights in f32, and damage to what lies in
// the tensors is refused by name. Fixtures: scripts/fixtures/awq.py.

import { join } from 'node:path';
import { load, type Model } from '../../src';
import { readSafetensorsHeader, readTensor } from '../../src/checkpoint/safetensors';
import { SparseVilaError } from '../../src/errors';
import type { LoadOptions } from '../../src/models/model';
import { openWeights } from '../../src/models/weights';
import { linear } from '../../src/ops/linear';
import { float32, floats } from '../../src/ops/run';
import { dequantize } from '../../src/ops/weights';
import { linearReference } from '../../testing/ops/references/linear';
import { nmse } from '../../testing/ops/tolerance';
import { changeJson, changeTensors, type Stored, withCopy } from '../support/checkpoint';

const FIXTURES = join(__dirname, '../../../spec/fixtures/awq');
const LLM = 'llm/model.safetensors';
/** Logits after three layers: 2.5e-8 measured with two planes of 8-bit activations, 1.3e-3 with one. */
const EXACT_NMSE = 1e-6;
const FAST_NMSE = 1e-2;
const IDS = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) % 424);

const folderOf = (name: string): string => join(FIXTURES, name);

/** Logits of every row of a prompt of words. */
async function logitsOf(folder: string, options: LoadOptions = {}): Promise<Float32Array> {
  const model: Model = await load(folder, options);
  const { decoder } = model;
  const [x, cache] = [decoder.embed(IDS), decoder.cache('f32', IDS.length)];
  const pace = async (): Promise<void> => undefined;
  const y = await decoder.forward(x, [{ cache, positions: [...IDS.keys()] }], { pace });
  const logits = decoder.logits(y, true).slice();
  for (const tensor of [x, y, cache]) tensor.dispose();
  model.dispose();
  return logits;
}

/** The copy of a checkpoint whose 4-bit modules are replaced with what they dequantize to. */
function dequantizeAll(folder: string): void {
  const expected = readSafetensorsHeader(join(folder, 'dequantized.safetensors'));
  changeTensors(join(folder, LLM), (tensors) => {
    for (const entry of expected) {
      const module = entry.name.replace(/\.weight$/, '.');
      for (const name of [...tensors.keys()])
        if (name.startsWith(module) && !name.endsWith('.bias')) tensors.delete(name);
      const { buffer } = readTensor(entry);
      tensors.set(entry.name, { dtype: 'F32', shape: entry.shape, data: new Uint8Array(buffer) });
    }
  });
  changeJson(join(folder, 'llm/config.json'), { quantization_config: undefined });
}

describe.each(['checkpoint-gemm', 'checkpoint-pack-quantized'])('%s', (name) => {
  test('has the logits of the same weights in f32', async () => {
    const expected = await withCopy(folderOf(name), (copy) => {
      dequantizeAll(copy);
      return logitsOf(copy);
    });
    const exact = await logitsOf(folderOf(name));
    const fast = await logitsOf(folderOf(name), { precision: 'fast' });
    const errors = [nmse(exact, expected), nmse(fast, expected)];
    expect(errors[0]).toBeLessThanOrEqual(EXACT_NMSE);
    expect(errors[1]).toBeLessThanOrEqual(FAST_NMSE);
    expect(errors[1]).toBeGreaterThan(errors[0] ?? Number.NaN);
  });

  test('answers through a session', async () => {
    const model = await load(folderOf(name));
    const session = model.session();
    const answer = session.ask('What is at b4?', { images: [join(folderOf(name), 'image.png')], maxTokens: 4 });
    expect(typeof (await answer.text())).toBe('string');
    expect(answer.stats).toBeDefined();
    session[Symbol.dispose]();
    model.dispose();
  });
});

test('a product with inputs that fill no group', () => {
  const weights = openWeights(join(FIXTURES, 'formats/pack-quantized'));
  for (const [module, rows, k] of [
    ['case-21x45-row', 21, 45],
    ['case-20x100-row-symmetric', 20, 100],
  ] as const) {
    const w = weights.matrix([`${module}.weight`], [rows], k);
    const values = Float32Array.from({ length: 3 * k }, (_, i) => Math.sin(i * i + 1));
    const [x, none, plain] = [float32(values, [3, k]), float32([], [0]), dequantize(w)];
    const y = linear(x, w, none);
    expect(nmse(floats(y), linearReference(values, floats(plain), k))).toBeLessThanOrEqual(EXACT_NMSE);
    for (const tensor of [x, none, plain, y]) tensor.dispose();
  }
  weights.dispose();
});

const GEMM = 'checkpoint-gemm';
const PACKED = 'checkpoint-pack-quantized';
const Q = 'model.layers.0.self_attn.q_proj';
const K = 'model.layers.0.self_attn.k_proj';
type Change = (tensors: Map<string, Stored>) => void;

/** Writes `value` at element `i` of a tensor of 16-bit or wider little-endian elements. */
const poke =
  (name: string, i: number, value: number | bigint): Change =>
  (tensors) => {
    const tensor = tensors.get(name);
    if (tensor === undefined) throw new Error(`no ${name}`);
    const data = Buffer.from(tensor.data);
    if (typeof value === 'bigint') data.writeBigInt64LE(value, 8 * i);
    else if (tensor.dtype === 'I32') data.writeInt32LE(value, 4 * i);
    else data.writeUInt16LE(value, 2 * i);
    tensors.set(name, { ...tensor, data });
  };
const add =
  (name: string, dtype: string, shape: readonly number[], data: Uint8Array): Change =>
  (tensors) =>
    tensors.set(name, { dtype, shape, data });
/** f16 scales widened to f32, and one of them changed by its last bit. */
const inexactScale: Change = (tensors) => {
  for (const module of [Q, K, Q.replace('q_', 'v_')]) {
    const scales = tensors.get(`${module}.scales`);
    if (scales === undefined) throw new Error('no scales');
    const words = Uint32Array.from({ length: scales.data.length / 2 }, () => 0x3f800000);
    if (module === K) words[5] = 0x3f800001;
    tensors.set(`${module}.scales`, { dtype: 'F32', shape: scales.shape, data: new Uint8Array(words.buffer) });
  }
};
const order = Int32Array.from({ length: 64 }, (_, i) => i % 2);

describe('is refused', () => {
  const rows: readonly (readonly [string, string, Change, RegExp])[] = [
    [
      'a NaN scale',
      GEMM,
      poke(`${K}.scales`, 7, 0x7e00),
      /^ERR_WEIGHT_VALUE: .*"model.*k_proj\.scales" \[2,32\].*element 7 is NaN/,
    ],
    ['an infinite scale', PACKED, poke(`${Q}.weight_scale`, 3, 0xfc00), /VALUE: .*q_proj\.weight_scale".*element 3 is/],
    ['an f32 scale with more bits', GEMM, inexactScale, /VALUE: .*k_proj\.scales".*element 5 is an f32 that neither/],
    [
      'activation order',
      GEMM,
      add(`${Q}.g_idx`, 'I32', [64], new Uint8Array(order.buffer)),
      /^ERR_WEIGHT_FORMAT: .*q_proj\.g_idx".*element 1 is group 1, expected 0; activation order/,
    ],
    [
      'another weight_shape',
      PACKED,
      poke(`${K}.weight_shape`, 1, 63n),
      /^ERR_WEIGHT_SHAPE: .*\[32,63\], expected \[32,64\]/,
    ],
    ['a module in two forms', GEMM, add(`${K}.weight`, 'F16', [32, 64], new Uint8Array(4096)), /FORMAT: .*k_proj/],
    ['missing scales', GEMM, (tensors) => tensors.delete(`${Q}.scales`), /^ERR_WEIGHT_MISSING: .*q_proj\.scales/],
    [
      'missing packed weights',
      GEMM,
      (tensors) => tensors.delete(`${Q}.qweight`),
      /^ERR_WEIGHT_MISSING: .*q_proj\.qweight/,
    ],
    [
      'a tensor that nobody asked for',
      GEMM,
      add(`${Q}.input_scale`, 'F16', [1], new Uint8Array(2)),
      /^ERR_WEIGHT_EXTRA: .*q_proj\.input_scale/,
    ],
  ];
  test.each(rows)('%s', async (_, name, change, message) => {
    const text = await withCopy(folderOf(name), async (copy) => {
      changeTensors(join(copy, LLM), change);
      return reasonOf(copy);
    });
    expect(text).toMatch(message);
  });

  test("a group size that is not the config's, and 8 bits", async () => {
    for (const [bits, group, message] of [
      [4, 64, /^ERR_WEIGHT_SHAPE: .*groups of 32 inputs.*config\.json says 64/],
      [8, 32, /^ERR_QUANTIZATION_UNSUPPORTED: .*"quantization_config\.bits", received 8/],
    ] as const) {
      const text = await withCopy(folderOf(GEMM), async (copy) => {
        const quantization = { quant_method: 'awq', bits, group_size: group, version: 'gemm' };
        changeJson(join(copy, 'llm/config.json'), { quantization_config: quantization });
        return reasonOf(copy);
      });
      expect(text).toMatch(message);
    }
  });

  test('two formats in one checkpoint', async () => {
    const module = 'model.layers.2.mlp.down_proj';
    const text = await withCopy(folderOf(GEMM), async (copy) => {
      changeTensors(join(copy, LLM), (tensors) => {
        for (const part of ['qweight', 'qzeros', 'scales']) tensors.delete(`${module}.${part}`);
        tensors.set(`${module}.weight_packed`, { dtype: 'I32', shape: [64, 12], data: new Uint8Array(64 * 48) });
        tensors.set(`${module}.weight_scale`, { dtype: 'F16', shape: [64, 3], data: new Uint8Array(64 * 6) });
        const shape = new Uint8Array(BigInt64Array.of(64n, 96n).buffer);
        tensors.set(`${module}.weight_shape`, { dtype: 'I64', shape: [2], data: shape });
      });
      return reasonOf(copy);
    });
    expect(text).toMatch(/^ERR_WEIGHT_FORMAT: .*one 4-bit format.*awq-gemm for "model.*pack-quantized for "model/);
  });
});

async function reasonOf(folder: string): Promise<string> {
  try {
    (await load(folder)).dispose();
  } catch (error) {
    if (error instanceof SparseVilaError) return `${error.code}: ${error.message}`;
    return `not ours: ${error}`;
  }
  return 'no error';
}

test('biases that the model does not have may lie beside 4-bit layers when they are all zero', async () => {
  const name = 'model.layers.0.mlp.down_proj';
  const withBias = (values: readonly number[], run: (copy: string) => Promise<unknown>): Promise<unknown> =>
    withCopy(folderOf('checkpoint-gemm'), (copy) => {
      changeTensors(join(copy, LLM), (tensors) => {
        const data = new Uint8Array(Float32Array.from(values).buffer);
        tensors.set(`${name}.bias`, { dtype: 'F32', shape: [values.length], data });
      });
      return run(copy);
    });
  const plain = await logitsOf(folderOf('checkpoint-gemm'));
  expect(await withBias([0, -0, 0], (copy) => logitsOf(copy))).toEqual(plain);
  await expect(withBias([0, 1, 0], (copy) => logitsOf(copy))).rejects.toMatchObject({
    code: 'ERR_WEIGHT_EXTRA',
    message: expect.stringContaining(`${name}.bias`),
  });
});
