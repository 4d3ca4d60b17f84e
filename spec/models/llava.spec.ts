// LLaVA-1.5 against transformers: two random checkpoints (Llama and Mistral decoders), three turns with two pictures each.
// Fixtures: scripts/fixtures/llava.py; the names of tensors are in its README.

import { join } from 'node:path';
import { dense, load, METHODS, type Model, type SparsityMethod } from '../../src';
import { readJson } from '../../src/json';
import { createSession } from '../../src/session/session';
import { FIXTURES } from '../support/assets';
import { formula } from '../support/family_suite';
import { encoded, pixelsOf, prepared } from '../support/media';
import { compareBits, F32_NMSE, largestDifference, nmse, PIXELS_ABSOLUTE } from '../support/nmse';
import { readExpected } from '../support/tensors';
import { runTower } from '../support/tower';
import { argmax, recordTurn } from '../support/turn';
import { watch } from '../support/watch';

const SIZES = [
  [40, 40],
  [30, 150],
  [150, 30],
  [50, 37],
  [2000, 1500],
] as const;

describe.each(['llava-llama', 'llava-mistral'])('%s', (name) => {
  const folder = join(FIXTURES, 'llava', name);
  const expected = readExpected(join(folder, 'expected.safetensors'));
  const image = (i: number): string => join(folder, `image${i}.png`);
  /** The part of a tensor that is about picture i of two. */
  const of = (tensor: string, i: number): Float32Array => {
    const all = expected.f32(tensor);
    return all.subarray((i * all.length) / 2, ((i + 1) * all.length) / 2);
  };
  const { turns } = readJson(join(folder, 'expected.json')) as unknown as {
    turns: { question: string; images: number }[];
  };
  let model: Model;
  beforeAll(async () => {
    model = await load(folder);
  });
  afterAll(() => model.dispose());

  it.each(SIZES)('a picture of %i x %i is resized and cropped as by Pillow', async (width, height) => {
    const { canvases } = await prepared(model, formula(width, height));
    const planes = expected.u8(`crop.${width}x${height}`);
    const pixels = planes.length / 3;
    const rows = Uint8Array.from(
      { length: planes.length },
      (_, i) => planes[(i % 3) * pixels + Math.floor(i / 3)] ?? 0,
    );
    expect(canvases).toHaveLength(1);
    expect(Buffer.compare(canvases[0]?.data ?? Buffer.alloc(0), rows)).toBe(0);
  });

  it.each([0, 1])('pixels, tower, salience of the class row and projected rows of picture %i', async (i) => {
    const medium = await prepared(model, image(i));
    expect(largestDifference(pixelsOf(model, medium), of('pixel_values', i))).toBeLessThanOrEqual(PIXELS_ABSOLUTE);
    const tower = await runTower(folder, medium);
    const e = model.plan.tower.hiddenSize;
    expect(nmse(tower.features.dataSync().subarray(e), of('tower', i))).toBeLessThanOrEqual(F32_NMSE);
    tower.features.dispose();
    const seen = await encoded(model, image(i), { salience: [-1] });
    expect(nmse(seen.features.dataSync(), of('tower', i))).toBeLessThanOrEqual(F32_NMSE);
    expect(nmse(seen.salience[0] ?? [], of('salience', i))).toBeLessThanOrEqual(F32_NMSE);
    const rows = model.project(seen.features, seen.layout);
    expect(nmse(rows.dataSync(), of('projected', i))).toBeLessThanOrEqual(F32_NMSE);
    rows.dispose();
    seen.dispose();
  });

  it('answers three turns about two pictures with the tokens of transformers', async () => {
    const watched = watch({ ...model, stopIds: [] });
    const session = createSession(watched.model, { kv: 'f32' });
    const prompts: number[] = [];
    try {
      for (const [turn, { question, images }] of turns.entries()) {
        watched.clear();
        const given = images === 1 ? [image(turn)] : [];
        const answer = session.ask(question, { images: given, maxTokens: 8, temperature: 0 });
        await answer.text();
        expect(watched.logits.map(argmax)).toEqual(expected.ids(`${turn}.greedy`));
        const tail = expected.f32(`${turn}.logits_tail`).subarray(-model.decoder.config.vocabSize);
        expect(nmse(watched.logits[0] ?? [], tail)).toBeLessThanOrEqual(F32_NMSE);
        prompts.push(answer.stats?.tokens.prompt ?? 0);
      }
      // "ASSISTANT:" ends a prompt and "ASSISTANT: answer" is history: of what the cache holds, everything before the answer stays.
      const cells = Math.floor((model.plan.tower.imageSize ?? 0) / model.plan.tower.patchSize);
      const rows = (turn: number): number =>
        expected.ids(`${turn}.input_ids`).reduce((sum, id) => sum + (id === model.marker.id ? cells * cells : 1), 0);
      expect(prompts).toEqual([rows(0), rows(1) - rows(0), rows(2) - rows(1)]);
    } finally {
      session.dispose();
    }
  });

  it('equals dense attention bit for bit if everything is kept', async () => {
    const ask = (method?: SparsityMethod) =>
      recordTurn(model, {
        images: [image(0), image(1)],
        question: 'What?',
        kv: 'bf16',
        maxTokens: 6,
        ...(method && { method }),
      });
    const [all, none] = [await ask(), await ask(dense())];
    expect(compareBits([all.promptLogits], [none.promptLogits])).toBe('identical');
    expect(all.text).toBe(none.text);
  });

  it.each(Object.values(METHODS).map((entry) => [entry.name, entry] as const))('runs %s', async (_, entry) => {
    const session = model.session({ method: entry.create({ prefillSparsity: 0.5, decodeSparsity: 0.5 }) });
    const first = session.ask('What is in the picture?', { images: [image(0)], maxTokens: 4 });
    const second = session.ask('And here?', { images: [image(1)], maxTokens: 4 });
    await first.text();
    await second.text();
    session.dispose();
    const tokens = Math.floor((model.plan.tower.imageSize ?? 0) / model.plan.tower.patchSize) ** 2;
    expect([first.stats?.tokens.visualSeen, second.stats?.tokens.visualSeen]).toEqual([tokens, tokens]);
  });
});
