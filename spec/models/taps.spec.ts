// The taps of a tower: keys against their definition, salience of any layer, and that taps do not change features.

import { join } from 'node:path';
import { load, type Model } from '../../src';
import { readSafetensorsHeader, readTensor } from '../../src/checkpoint/safetensors';
import type { PreparedMedium } from '../../src/models/media';
import type { TowerTaps } from '../../src/models/tower';
import { layerNormReference } from '../../testing/ops/references/norm';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { encoded, prepared } from '../support/media';
import { compareBits, F32_NMSE, nmse } from '../support/nmse';
import { runTower } from '../support/tower';

const FOLDER = join(TINY, 'vision_tower');

let model: Model;
let picture: PreparedMedium;
beforeAll(async () => {
  model = await load(TINY, { weights: 'f32' });
  picture = await prepared(model, scene(0));
});
afterAll(() => model.dispose());

/** The tower whose features are hidden state `depth` of the five blocks', with its default weights. */
async function run(depth: number, taps: TowerTaps) {
  const { features, salience, keys } = await runTower(TINY, picture, taps, { depth });
  const values = features.dataSync<'float32'>().slice();
  features.dispose();
  return { features: values, salience, keys };
}

/** W_k norm1(x) + b_k in double precision, for x f32 [n, e] that enters block i. */
function keysReference(x: Float32Array, i: number, eps: number): Float64Array {
  const entries = readSafetensorsHeader(join(FOLDER, 'model.safetensors'));
  const tensor = (name: string): Float32Array => {
    const entry = entries.find((one) => one.name.endsWith(`encoder.layers.${i}.${name}`));
    if (entry === undefined) throw new Error(`no ${name}`);
    return readTensor(entry);
  };
  const [w, bias] = [tensor('self_attn.k_proj.weight'), tensor('self_attn.k_proj.bias')];
  const e = bias.length;
  const y = layerNormReference(x, tensor('layer_norm1.weight'), tensor('layer_norm1.bias'), eps);
  return Float64Array.from({ length: x.length }, (_, at) => {
    const [row, out] = [Math.floor(at / e), at % e];
    let sum = bias[out] ?? Number.NaN;
    for (let c = 0; c < e; c++) sum += (y[row * e + c] ?? Number.NaN) * (w[out * e + c] ?? Number.NaN);
    return sum;
  });
}

describe('taps of a tower', () => {
  it.each([0, 3, 4])('keys of block %i are W_k norm1(x) + b_k', async (i) => {
    const { features: entering } = await run(i, {});
    const { keys } = await run(4, { keys: [i] });
    expect(keys).toHaveLength(1);
    expect(nmse(keys[0] ?? [], keysReference(entering, i, model.plan.tower.normEps))).toBeLessThanOrEqual(F32_NMSE);
  });

  it('salience of several layers in the order asked, negative or as shares of the depth, each summing to 1', async () => {
    const all = (await run(4, { salience: [0, 1, 2, 3, 4] })).salience;
    for (const values of all) expect(values.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
    expect(compareBits(all.slice(0, 1), all.slice(1, 2))).not.toBe('identical');
    // Of five layers: -1 is 4, 1/3 is 2, 0.99 is the last, 0.01 the first.
    const named = (await run(4, { salience: [-1, 1 / 3, 0.99, 0.01, 1] })).salience;
    const [a, b, c, , e] = all as [Float32Array, Float32Array, Float32Array, Float32Array, Float32Array];
    expect(compareBits(named, [e, c, e, a, b])).toBe('identical');
  });

  it('requesting layers does not change features', async () => {
    const { features } = await run(4, {});
    for (const taps of [{ salience: [0] }, { salience: [-1] }, { keys: [-1] }, { keys: [1, -1], salience: [3] }])
      expect(compareBits([(await run(4, taps)).features], [features])).toBe('identical');
  });

  it('of a token of several patches are means', async () => {
    const patches = await run(4, { keys: [2], salience: [2] });
    const image = await encoded(model, scene(0), { keys: [2], salience: [2] });
    const mean = (values: Float32Array | undefined, width: number, c: number): number =>
      [0, 1, 20, 21].reduce((sum, patch) => sum + (values?.[patch * width + c] ?? Number.NaN) / 4, 0);
    expect(image.keys[0]?.width).toBe(32);
    expect(image.keys[0]?.data).toHaveLength(100 * 128);
    const expected = Array.from({ length: 128 }, (_, c) => mean(patches.keys[0], 128, c));
    expect(nmse(image.keys[0]?.data.slice(0, 128) ?? [], expected)).toBeLessThanOrEqual(F32_NMSE);
    expect(image.salience[0]?.[0]).toBeCloseTo(mean(patches.salience[0], 1, 0), 6);
    image.dispose();
  });

  it.each([5, -6, 1.5])('refuses layer %d of five', async (layer) => {
    for (const taps of [{ keys: [layer] }, { salience: [layer] }])
      expect((await errorOf(() => run(4, taps))).code).toBe('ERR_OPTION_INVALID');
  });
});
