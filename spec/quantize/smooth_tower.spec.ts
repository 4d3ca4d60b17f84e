// The packaged model's vision tower in 8 bits: quality with and without smoothing, files, and
// `quantize` with both decoder and tower.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { load } from '../../src';
import { decodeFloats, encodeFloats } from '../../src/checkpoint/half';
import { openCheckpoint, readTensor } from '../../src/checkpoint/safetensors';
import { readJson } from '../../src/json';
import type { PreparedMedium } from '../../src/models/media';
import { type QuantizeOptions, quantize } from '../../src/quantize/quantize';
import { roundToInt8 } from '../../src/quantize/smooth';
import { conversations, scene, TINY } from '../support/assets';
import { changeJson, changeTensors, type Stored } from '../support/checkpoint';
import { prepared } from '../support/media';
import { nmse } from '../support/nmse';
import { runTower } from '../support/tower';

/** Over 24 pictures: features 1.98e-4 smoothed and 2.16e-4 not, salience of the last layer 1.42e-4 and 1.20e-4 measured. */
const W8A8_NMSE = 3e-4;
/** The tolerances with outlier channels (see below). */
const OUTLIERS_NMSE = 1e-3;

let folder: string;
const pictures: PreparedMedium[] = [];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-smooth-'));
  const model = await load(TINY);
  for (let i = 0; i < 24; i++) pictures.push(await prepared(model, scene(i)));
  model.dispose();
});
afterAll(() => rmSync(folder, { recursive: true }));

const at = (name: string): string => join(folder, name);
const TOWER_FILE = 'vision_tower/model.safetensors';

const smoothed = (out: string, more: Partial<QuantizeOptions> = {}) =>
  quantize({ model: TINY, out: at(out), modules: [], tower: 'w8a8', ...more });

/** A copy of a model with its tower in 8 bits. */
async function withTower(name: string, model = TINY): Promise<string> {
  const { tower } = await smoothed(name, { model });
  expect(tower).toEqual({ blocks: 5, images: 12, errors: [] });
  return at(name);
}

/** The same without smoothing. */
function withPlainTower(name: string, model = TINY): string {
  cpSync(model, at(name), { recursive: true });
  changeTensors(join(at(name), TOWER_FILE), (tensors) => {
    for (const [tensor, { dtype, shape, data }] of tensors) {
      if (!/(_proj|fc\d)\.weight$/.test(tensor)) continue;
      const [rows = 0, cols = 0] = shape;
      const values = decodeFloats(Uint8Array.from(data), dtype as 'BF16');
      const { q, scale } = roundToInt8({ rows, cols, values });
      tensors.set(tensor, { dtype: 'I8', shape, data: new Uint8Array(q.buffer) });
      tensors.set(`${tensor}_scale`, { dtype: 'F32', shape: [rows, 1], data: encodeFloats(scale, 'F32') });
    }
  });
  const { quantization_config } = readJson(join(at('smooth'), 'vision_tower/config.json'));
  changeJson(join(at(name), 'vision_tower/config.json'), { quantization_config });
  return at(name);
}

/** The tower's features for the first pictures, end to end, and the salience of its last layer. */
async function seen(model: string, count = 24): Promise<{ features: Float32Array; salience: Float32Array }> {
  const [features, salience]: [number[], number[]] = [[], []];
  for (const picture of pictures.slice(0, count)) {
    const output = await runTower(model, picture);
    for (const value of output.features.dataSync<'float32'>()) features.push(value);
    salience.push(...(output.salience[0] ?? []));
    output.features.dispose();
  }
  return { features: Float32Array.from(features), salience: Float32Array.from(salience) };
}

/** How many of the answers equal the float model's, and how many are true. */
async function score(path: string): Promise<{ asFloat: number; right: number; of: number }> {
  const model = await load(path);
  const sum = { asFloat: 0, right: 0, of: 0 };
  for (const [i, { turns }] of conversations().entries()) {
    using session = model.session({ kv: 'f32' });
    for (const [t, { question, greedy, truth }] of turns.entries()) {
      const text = await session.ask(question, t === 0 ? { images: [scene(i)] } : {}).text();
      sum.asFloat += Number(text === greedy);
      sum.right += Number(text === truth);
      sum.of++;
    }
  }
  model.dispose();
  return sum;
}

/** Changes the elements of a bf16 tensor. */
function scaleElements(tensors: Map<string, Stored>, name: string, factor: (i: number) => number): void {
  const tensor = tensors.get(name);
  if (tensor === undefined) throw new Error(`no ${name}`);
  const values = decodeFloats(Uint8Array.from(tensor.data), 'BF16').map((value, i) => value * factor(i));
  tensors.set(name, { ...tensor, data: encodeFloats(values, 'BF16') });
}

/** The packaged model with three channels of each norm 64 times as large and their weights as much smaller: the same function. */
function withOutliers(name: string): string {
  cpSync(TINY, at(name), { recursive: true });
  changeTensors(join(at(name), TOWER_FILE), (tensors) => {
    const large = (c: number): number => ([5, 40, 111].includes(c) ? 64 : 1);
    for (let i = 0; i < 5; i++) {
      const layer = `vision_model.encoder.layers.${i}`;
      for (const norm of ['layer_norm1', 'layer_norm2'])
        for (const part of ['weight', 'bias']) scaleElements(tensors, `${layer}.${norm}.${part}`, large);
      for (const linear of ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj', 'mlp.fc1'])
        scaleElements(tensors, `${layer}.${linear}.weight`, (w) => 1 / large(w % 128));
    }
  });
  return at(name);
}

describe('quality', () => {
  it('at least 142 of 144 answers equal those of the float tower, and smoothing reduces the error of features', async () => {
    const [smooth, plain] = [await withTower('smooth'), withPlainTower('plain')];
    const float = await seen(TINY);
    const errors: number[] = [];
    for (const path of [smooth, plain]) {
      const { features, salience } = await seen(path);
      const [feature, salient] = [nmse(features, float.features), nmse(salience, float.salience)];
      const { asFloat, right, of } = await score(path);
      process.stderr.write(`W8A8 tower: features ${feature}, salience ${salient}, ${asFloat} of ${of} as float\n`);
      for (const error of [feature, salient]) expect(error).toBeLessThanOrEqual(W8A8_NMSE);
      expect(feature).toBeGreaterThan(1e-6); // it does run in 8 bits
      expect(of).toBe(144);
      expect(asFloat).toBeGreaterThanOrEqual(142);
      expect(right).toBeGreaterThanOrEqual(132);
      errors.push(feature);
    }
    expect(errors[0]).toBeLessThan(errors[1] ?? 0);
  });

  it('smoothing reduces the error of outlier channels to a tenth', async () => {
    const model = withOutliers('outliers');
    const float = await seen(TINY, 4);
    const same = await seen(model, 4);
    expect(nmse(same.features, float.features)).toBeLessThanOrEqual(1e-12);
    const smooth = await seen(await withTower('outliers-smooth', model), 4);
    const plain = await seen(withPlainTower('outliers-plain', model), 4);
    const errors = [nmse(smooth.features, float.features), nmse(plain.features, float.features)];
    process.stderr.write(`outlier channels: features ${errors[0]} smoothed, ${errors[1]} not\n`);
    expect(errors[0]).toBeLessThanOrEqual(OUTLIERS_NMSE);
    expect(errors[0]).toBeLessThan((errors[1] ?? 0) / 10);
  });
});

describe('files', () => {
  it('int8 weights and scales, norms in f32, everything else unchanged', async () => {
    const [before, after] = [
      openCheckpoint(join(TINY, 'vision_tower')),
      openCheckpoint(join(at('smooth'), 'vision_tower')),
    ];
    for (const [name, entry] of before) {
      const { dtype, shape } = entry;
      const now = after.get(name);
      if (/(_proj|fc\d)\.weight$/.test(name)) {
        expect(now).toMatchObject({ dtype: 'I8', shape });
        expect(after.get(`${name}_scale`)).toMatchObject({ dtype: 'F32', shape: [shape[0], 1] });
        after.delete(`${name}_scale`);
      } else if (/layer_norm\d/.test(name)) expect(now).toMatchObject({ dtype: 'F32', shape });
      else {
        expect(now).toMatchObject({ dtype, shape });
        expect(now && readTensor(now)).toEqual(readTensor(entry));
      }
      after.delete(name);
    }
    expect([...after.keys()]).toEqual([]);
  });

  it('a config of int-quantized is added', () => {
    const { quantization_config: quantization, ...rest } = readJson(join(at('smooth'), 'vision_tower/config.json'));
    expect(rest).toEqual(readJson(join(TINY, 'vision_tower/config.json')));
    expect(quantization).toMatchObject({
      quant_method: 'compressed-tensors',
      format: 'int-quantized',
      config_groups: {
        group_0: {
          weights: { num_bits: 8, type: 'int', symmetric: true, strategy: 'channel', dynamic: false },
          input_activations: { num_bits: 8, type: 'int', symmetric: true, strategy: 'token', dynamic: true },
        },
      },
      ignore: [],
    });
  });
});

describe('refused', () => {
  it('a tower that is quantized already, and calibration without pictures', async () => {
    await expect(smoothed('refused', { model: at('smooth') })).rejects.toMatchObject({ code: 'ERR_ALREADY_QUANTIZED' });
    for (const images of [[], [at('missing.png')]]) {
      writeFileSync(at('bad.jsonl'), JSON.stringify({ images, turns: [{ question: 'a', answer: 'b' }] }));
      await expect(smoothed('refused', { calibration: at('bad.jsonl') })).rejects.toMatchObject({
        code: 'ERR_CALIBRATION',
      });
    }
    expect(readdirSync(folder).filter((name) => name.startsWith('refused'))).toEqual([]);
  });

  it('weights that are NaN, by name', async () => {
    cpSync(TINY, at('nan'), { recursive: true });
    const name = 'vision_model.encoder.layers.2.mlp.fc1.weight';
    changeTensors(join(at('nan'), TOWER_FILE), (tensors) =>
      scaleElements(tensors, name, (i) => (i === 9 ? Number.NaN : 1)),
    );
    await expect(smoothed('refused', { model: at('nan') })).rejects.toMatchObject({
      message: expect.stringContaining(name),
    });
  });
});

describe('quantize with a tower', () => {
  const quick = (out: string, more: Partial<QuantizeOptions> = {}) =>
    quantize({ model: TINY, out: at(out), tower: 'w8a8', samples: 2, rows: 128, ...more });
  const bytes = (name: string, part: string): Buffer => readFileSync(join(at(name), part, 'model.safetensors'));

  it('gives one checkpoint, which answers', async () => {
    const result = await quick('both');
    expect(result).toMatchObject({ out: at('both'), tower: { blocks: 5, images: 2 }, resumed: 0 });
    expect(result.layers).toHaveLength(4);
    expect(readdirSync(at('both'), { recursive: true }).sort()).toEqual(readdirSync(TINY, { recursive: true }).sort());
    expect(existsSync(at('both.partial'))).toBe(false);
    const model = await load(at('both'));
    using session = model.session();
    expect(await session.ask('What is at b4?', { images: [scene(0)] }).text()).not.toBe('');
    model.dispose();
  });

  it('stopped in the decoder, continues to the same bytes, and refuses other options', async () => {
    const controller = new AbortController();
    const onProgress: QuantizeOptions['onProgress'] = ({ step, done }) => {
      if (step === 'quantize layers' && done > 1.2) controller.abort();
    };
    await expect(quick('stopped', { signal: controller.signal, onProgress })).rejects.toMatchObject({
      name: 'AbortError',
    });
    expect(existsSync(at('stopped'))).toBe(false);
    await expect(quick('stopped', { groupSize: 64 })).rejects.toMatchObject({ code: 'ERR_RESUME_MISMATCH' });
    expect((await quick('stopped')).resumed).toBe(5 + 1);
    for (const part of ['llm', 'vision_tower']) expect(bytes('stopped', part).equals(bytes('both', part))).toBe(true);
    expect(existsSync(at('stopped.partial'))).toBe(false);
  });

  it('stopped in the tower, continues with its blocks to the same bytes', async () => {
    const controller = new AbortController();
    const onProgress: QuantizeOptions['onProgress'] = ({ step, done }) => {
      if (step === 'quantize tower' && done === 2) controller.abort();
    };
    const early = { modules: [], onProgress, signal: controller.signal };
    await expect(quick('early', early)).rejects.toMatchObject({ name: 'AbortError' });
    expect(existsSync(at('early'))).toBe(false);
    expect((await quick('early', { modules: [] })).resumed).toBe(2);
    expect(bytes('early', 'vision_tower').equals(bytes('both', 'vision_tower'))).toBe(true);
  });

  it('without one, is quantize', async () => {
    const result = await quick('decoder', { tower: undefined, method: 'rtn' });
    expect(result.tower).toBeUndefined();
    expect(bytes('decoder', 'vision_tower').equals(readFileSync(join(TINY, TOWER_FILE)))).toBe(true);
  });

  it('does not change an existing folder and leaves none', async () => {
    mkdirSync(at('there'));
    await expect(quick('there')).rejects.toMatchObject({ code: 'ERR_OUTPUT_EXISTS' });
    await expect(quick('wrong', { groupSize: 96 })).rejects.toMatchObject({ code: 'ERR_QUANTIZE_SHAPE' });
    await expect(quick('wrong', { calibration: at('none.jsonl') })).rejects.toMatchObject({ code: 'ERR_CALIBRATION' });
    await expect(quick('wrong', { tower: 'w4' as 'w8a8' })).rejects.toMatchObject({ code: 'ERR_OPTION_INVALID' });
    await expect(quick('wrong', { model: at('smooth') })).rejects.toMatchObject({ code: 'ERR_ALREADY_QUANTIZED' });
    expect(readdirSync(folder).filter((name) => name.startsWith('wrong'))).toEqual([]);
    expect(readdirSync(at('there'))).toEqual([]);
  });
});
