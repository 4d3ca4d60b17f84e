// The packaged model's vision tower in 8 bits: what it costs, with and without smoothing, and which files are written.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { load } from '../../src';
import { readJson } from '../../src/json';
import { openCheckpoint, readTensor } from '../../src/models/safetensors';
import { packagedScenes } from '../../src/quantize/options';
import { type SmoothTowerResult, smoothTower } from '../../src/quantize/smooth_tower';
import { conversations, scene, TINY } from '../support/assets';
import { changeTensors, withCopy } from '../support/checkpoint';
import { nmse } from '../support/nmse';
import { runTower } from '../support/tower';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-smooth-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A copy of the packaged model with its tower in 8 bits. */
async function withTower(name: string, smoothing: boolean): Promise<[string, SmoothTowerResult]> {
  const copy = join(folder, name);
  cpSync(TINY, copy, { recursive: true });
  const samples = packagedScenes('calibration');
  return [copy, await smoothTower({ model: TINY, samples, smoothing }, join(copy, 'vision_tower'))];
}

/** The tower's features for all 24 pictures, end to end, and the salience of its last layer. */
async function features(model: string, pixels: readonly Float32Array[]): Promise<[Float32Array, Float32Array]> {
  const [seen, salient]: [number[], number[]] = [[], []];
  for (const picture of pixels) {
    const output = await runTower(model, picture);
    for (const value of output.features.dataSync<'float32'>()) seen.push(value);
    salient.push(...(output.salience ?? []));
    output.features.dispose();
  }
  return [Float32Array.from(seen), Float32Array.from(salient)];
}

/** How many of the 144 answers are the float model's, and how many are true. */
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

describe('quality, 24 pictures of 6 questions', () => {
  it('smoothing', async () => {
    const [smooth, result] = await withTower('smooth', true);
    const [plain] = await withTower('plain', false);
    expect(result).toEqual({ blocks: 5, images: 12 });
    const model = await load(TINY);
    const pixels: Float32Array[] = [];
    for (let i = 0; i < 24; i++) pixels.push((await model.prepareImage(scene(i))).pixels);
    model.dispose();
    const [float, floatSalience] = await features(TINY, pixels);
    for (const path of [smooth, plain]) {
      const [seen, salience] = await features(path, pixels);
      process.stderr.write(`${path}: features ${nmse(seen, float)}, salience ${nmse(salience, floatSalience)}, ${JSON.stringify(await score(path))}\n`);
    }
  });
});
void [existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync, readJson, openCheckpoint, readTensor, changeTensors, withCopy];
