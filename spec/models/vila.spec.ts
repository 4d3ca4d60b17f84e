// The VILA family against torch and transformers: five random checkpoints that between them have every projector, both decoders, all
// weight types, odd grids and both image modes. Fixtures: scripts/fixtures/vila.py; the names of tensors are in its README.

import { join } from 'node:path';
import { load, type Model, sparseVila } from '../../src';
import { configReader, readJson } from '../../src/json';
import type { WeightType } from '../../src/ops/weights';
import { vilaCase } from '../support/assets';
import { encoded, pixelsOf, prepared } from '../support/media';
import { F32_NMSE, largestDifference, nmse, PIXELS_ABSOLUTE } from '../support/nmse';
import { readExpected, rowsOf } from '../support/tensors';
import { runTower } from '../support/tower';
import { joined, recordTurn, type TurnRecord } from '../support/turn';

const GREEDY_TOKENS = 8;
/** Error of the logits of these small models by data type: 1.1e-4 measured in bf16 (8 bits of 24), 2.7e-6 in f16 (11 bits). */
const STORED_NMSE: Readonly<Record<WeightType, number>> = { f32: F32_NMSE, f16: 1e-5, bf16: 1e-3 };

const CASES = [
  { name: 'mlp-downsample-odd', block: 2, prompt: 'expected' },
  { name: 'mlp2x-gelu', block: 1, prompt: 'expected' },
  { name: 'linear', block: 1, prompt: 'expected' },
  { name: 'linear', block: 1, prompt: 'expected-two' },
  { name: 'mlp-downsample-3x3', block: 3, prompt: 'expected' },
  { name: 'mlp-downsample-2x2-fix-odd', block: 2, prompt: 'expected' },
];

/** The question of a case and its pictures. */
function request(folder: string, prompt: string): { question: string; images: string[]; sparsity: [number, number] } {
  const config = configReader(readJson(join(folder, 'expected.json')), folder);
  const asked = config.object('prompts')?.object(prompt)?.object('prompt');
  const sparsity = config.object('sparsity');
  if (asked === undefined || sparsity === undefined) throw new Error(`no prompt ${prompt} in ${folder}`);
  const images = ['image.png', 'image2.png'].slice(0, asked.number('images')).map((name) => join(folder, name));
  return {
    question: asked.string('question'),
    images,
    sparsity: [sparsity.number('prune'), sparsity.number('retrieve')],
  };
}

describe.each(CASES)('$name, $prompt', ({ name, block, prompt }) => {
  const folder = vilaCase(name);
  const { question, images, sparsity } = request(folder, prompt);
  const expected = readExpected(join(folder, `${prompt}.safetensors`));
  const { f32, ids } = expected;
  /** The part of a tensor that is about image i. */
  const of = (tensor: string, i: number): Float32Array => {
    const all = f32(tensor);
    return all.subarray((i * all.length) / images.length, ((i + 1) * all.length) / images.length);
  };
  let model: Model;
  let turn: TurnRecord;
  beforeAll(async () => {
    model = await load(folder);
    turn = await recordTurn(model, { images, question, kv: 'f32', maxTokens: GREEDY_TOKENS });
  });
  afterAll(() => model.dispose());

  it.each(images.map((_, i) => i))('pixels, tower, salience and projected rows of image %i', async (i) => {
    const medium = await prepared(model, images[i] ?? '');
    expect(largestDifference(pixelsOf(model, medium), of('pixel_values', i))).toBeLessThanOrEqual(PIXELS_ABSOLUTE);
    const grid = Math.floor((model.plan.tower.imageSize ?? 0) / model.plan.tower.patchSize);
    const tower = await runTower(folder, medium);
    expect(nmse(tower.features.dataSync(), of('tower', i))).toBeLessThanOrEqual(F32_NMSE);
    expect(nmse(tower.salience[0] ?? [], of('salience_patch', i))).toBeLessThanOrEqual(F32_NMSE);
    tower.features.dispose();
    const image = await encoded(model, images[i] ?? '', { salience: [-1] });
    const merged = spaceToDepth(of('tower', i), grid, grid, block);
    expect(nmse(image.features.dataSync(), merged)).toBeLessThanOrEqual(F32_NMSE);
    expect(nmse(image.salience[0] ?? [], of('salience', i))).toBeLessThanOrEqual(F32_NMSE);
    const rows = model.project(image.features, image.layout);
    expect(nmse(rows.dataSync(), of('projected', i))).toBeLessThanOrEqual(F32_NMSE);
    rows.dispose();
    image.dispose();
  });

  it('prompt and positions', () => {
    expect(turn.promptIds).toEqual(ids('input_ids'));
    expect(turn.positions).toEqual(Array.from({ length: expected.shape('hidden.0')[0] ?? 0 }, (_, at) => at));
  });

  it('hidden states, the last one after the final norm, and logits', () => {
    expect(expected.has(`hidden.${turn.hidden.length}`)).toBe(false);
    for (const [layer, state] of turn.hidden.entries())
      expect([layer, nmse(state, f32(`hidden.${layer}`)) <= F32_NMSE]).toEqual([layer, true]);
    const tail = f32('logits_tail');
    expect(nmse(turn.promptLogits.subarray(-tail.length), tail)).toBeLessThanOrEqual(F32_NMSE);
  });

  it('relevance and greedy answer', () => {
    expect(nmse(joined(turn.relevance), f32('relevance'))).toBeLessThanOrEqual(F32_NMSE);
    expect(turn.greedy).toEqual(ids('greedy'));
  });

  it('SparseVILA: kept and retrieved rows, relevance and answer', async () => {
    const [prefillSparsity, decodeSparsity] = sparsity;
    const method = sparseVila({ prefillSparsity, decodeSparsity });
    const sparse = await recordTurn(model, { images, question, kv: 'f32', maxTokens: GREEDY_TOKENS, method });
    const numbered = sparse.stats.media.flatMap(({ kept, tokens }, i) => Array.from(kept, (at) => at + i * tokens));
    expect(numbered).toEqual(ids('kept'));
    expect(nmse(joined(sparse.relevance), f32('sparse_relevance'))).toBeLessThanOrEqual(F32_NMSE);
    const [layers = 0, count = 0] = expected.shape('sparse_retrieved');
    expect(sparse.stats.retrieved?.map((rows) => Array.from(rows))).toEqual(rowsOf(ids('sparse_retrieved'), count));
    expect(sparse.stats.retrieved).toHaveLength(layers);
    expect(sparse.greedy).toEqual(ids('sparse_greedy'));
  });
});

describe('matrices stored as another type', () => {
  const folder = vilaCase('linear');
  const { question, images } = request(folder, 'expected');
  const expected = readExpected(join(folder, 'expected.safetensors')).f32('logits_tail');

  it.each(['f32', 'f16', 'bf16'] as const)('%s', async (weights) => {
    using model = await load(folder, { weights });
    const { promptLogits } = await recordTurn(model, { images, question, kv: 'f32', maxTokens: 1 });
    const error = nmse(promptLogits.subarray(-expected.length), expected);
    expect(error).toBeLessThanOrEqual(STORED_NMSE[weights]);
    // If the option were ignored, the error would be as small as with f32.
    expect(error > F32_NMSE).toBe(weights !== 'f32');
  });

  it.each(CASES.filter(({ prompt }) => prompt === 'expected'))(
    '$name in f32 is what it is in its own type',
    async ({ name }) => {
      const own = await load(vilaCase(name));
      const wide = await load(vilaCase(name), { weights: 'f32' });
      const asked = { ...request(vilaCase(name), 'expected'), kv: 'f32', maxTokens: 1 } as const;
      const [a, b] = [await recordTurn(own, asked), await recordTurn(wide, asked)];
      own.dispose();
      wide.dispose();
      expect(nmse(a.promptLogits, b.promptLogits)).toBeLessThanOrEqual(F32_NMSE);
    },
  );
});

/**
 * [h w, c] -> [ceil(h/k) ceil(w/k), k k c]: one token per k x k block in raster order, the block's patches in row-major order along the
 * channels; missing patches at the bottom and right are zero.
 */
function spaceToDepth(x: ArrayLike<number>, h: number, w: number, k: number): Float64Array {
  const c = x.length / (h * w);
  const [rows, cols] = [Math.ceil(h / k), Math.ceil(w / k)];
  const y = new Float64Array(rows * cols * k * k * c);
  for (let i = 0; i < h; i++)
    for (let j = 0; j < w; j++) {
      const token = Math.floor(i / k) * cols + Math.floor(j / k);
      const patch = (i % k) * k + (j % k);
      for (let e = 0; e < c; e++) y[(token * k * k + patch) * c + e] = x[(i * w + j) * c + e] as number;
    }
  return y;
}
