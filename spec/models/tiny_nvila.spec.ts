// The packaged model against its f32 reference (transformers' classes on the same bf16 weights): every stage of two turns, and the
// answers of all 24 reference conversations. Fixtures: scripts/fixtures and the model's own README.

import { load, type Model, sparseVila } from '../../src';
import * as config from '../../src/models/config';
import type { PreparedMedium } from '../../src/models/media';
import type { SessionOptions } from '../../src/session/session';
import { roundToBf16 } from '../../testing/ops/cases/data';
import { conversations, STAGES, scene, TINY } from '../support/assets';
import { encoded, pixelsOf, prepared } from '../support/media';
import { F32_NMSE, largestDifference, nmse, PIXELS_ABSOLUTE } from '../support/nmse';
import { readExpected } from '../support/tensors';
import { runTower } from '../support/tower';
import { recordTurn, type TurnRecord } from '../support/turn';

/** Keys and values with 8 bits cost 8e-7 of the logits. */
const BF16_LOGITS_NMSE = 1e-5;
/** The softmax exponentiates the rounding errors of the scores: 1.5e-4 measured, in a layer whose mass lies mostly on text. */
const BF16_RELEVANCE_NMSE = 1e-3;

const expected = readExpected(STAGES);
const CONVERSATIONS = conversations();
let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

/**
 * The packaged model with its rotary frequencies rounded to bf16. The reference's stages were made that way (the model was cast to bf16
 * and back, which casts that buffer too); with exact frequencies they differ by 6e-6 after one layer, with rounded ones by 2e-13.
 */
async function loadAsReference(): Promise<Model> {
  const exact = config.ropeInverseFrequencies;
  const spy = jest
    .spyOn(config, 'ropeInverseFrequencies')
    .mockImplementation((...given) => exact(...given).map(roundToBf16));
  const loaded = await load(TINY);
  expect(spy).toHaveBeenCalledTimes(1);
  spy.mockRestore();
  return loaded;
}

describe.each([0, 1])('picture %i', (i) => {
  const f32 = (name: string): Float32Array => expected.f32(`${i}.${name}`);
  const question = CONVERSATIONS[i]?.turns[0]?.question ?? '';
  let medium: PreparedMedium;
  let turn: TurnRecord;
  let reference: Model;
  beforeAll(async () => {
    reference = await loadAsReference();
    medium = await prepared(model, scene(i));
    turn = await recordTurn(reference, { images: [scene(i)], question, kv: 'f32', maxTokens: 1 });
  });
  afterAll(() => reference.dispose());

  it('pixels', () => {
    expect(largestDifference(pixelsOf(model, medium), f32('pixel_values'))).toBeLessThanOrEqual(PIXELS_ABSOLUTE);
  });

  it('tower and salience per patch', async () => {
    const { features, salience } = await runTower(TINY, medium);
    const tower = nmse(features.dataSync(), f32('tower'));
    features.dispose();
    expect(tower).toBeLessThanOrEqual(F32_NMSE);
    expect(nmse(salience[0] ?? [], f32('salience_patch'))).toBeLessThanOrEqual(F32_NMSE);
  });

  it('salience per token and projected rows', async () => {
    const image = await encoded(model, scene(i), { salience: [-1] });
    const rows = model.project(image.features, image.layout);
    const projected = rows.dataSync<'float32'>().slice();
    rows.dispose();
    image.dispose();
    expect(nmse(image.salience[0] ?? [], f32('salience'))).toBeLessThanOrEqual(F32_NMSE);
    expect(nmse(projected, f32('projected'))).toBeLessThanOrEqual(F32_NMSE);
  });

  it('prompt', () => {
    expect(turn.promptIds).toEqual(expected.ids(`${i}.input_ids`));
    expect(turn.positions).toEqual(Array.from({ length: turn.positions.length }, (_, at) => at));
    expect(turn.positions).toHaveLength(expected.shape(`${i}.logits`)[0] ?? 0);
  });

  // The reference's hidden.4, like transformers' last hidden state, is after the final norm.
  it.each([0, 1, 2, 3, 4])('hidden state %i', (layer) => {
    expect(nmse(turn.hidden[layer] ?? [], f32(`hidden.${layer}`))).toBeLessThanOrEqual(F32_NMSE);
  });

  it('logits of every row', () => {
    expect(nmse(turn.promptLogits, f32('logits'))).toBeLessThanOrEqual(F32_NMSE);
  });

  it('relevance in every layer', () => {
    const all = f32('relevance');
    expect(turn.relevance).toHaveLength(4);
    for (const [layer, values] of turn.relevance.entries())
      expect(nmse(values, all.subarray(layer * 100, (layer + 1) * 100))).toBeLessThanOrEqual(F32_NMSE);
  });

  it('with a bf16 cache, logits and relevance are within the error of eight bits', async () => {
    const rounded = await recordTurn(reference, { images: [scene(i)], question, kv: 'bf16', maxTokens: 1 });
    const error = nmse(rounded.promptLogits, f32('logits'));
    expect(error).toBeLessThanOrEqual(BF16_LOGITS_NMSE);
    // If the option did not reach the cache, the error would be as small as with f32.
    expect(error).toBeGreaterThan(F32_NMSE);
    for (const [layer, values] of rounded.relevance.entries())
      expect(nmse(values, turn.relevance[layer] ?? [])).toBeLessThanOrEqual(BF16_RELEVANCE_NMSE);
  });
});

/** How many answers of all conversations equal the reference's, and how many are true. */
async function score(options: SessionOptions): Promise<{ asReference: number; right: number; of: number }> {
  const sum = { asReference: 0, right: 0, of: 0 };
  for (const [i, { turns }] of CONVERSATIONS.entries()) {
    using session = model.session(options);
    for (const [t, { question, greedy, truth }] of turns.entries()) {
      const text = await session.ask(question, t === 0 ? { images: [scene(i)] } : {}).text();
      sum.asReference += Number(text === greedy);
      sum.right += Number(text === truth);
      sum.of++;
    }
  }
  return sum;
}

describe('reference conversations, 24 pictures of 6 turns', () => {
  it("every greedy answer is the reference's with an f32 cache", async () => {
    const { asReference, right, of } = await score({ kv: 'f32' });
    expect({ asReference, of }).toEqual({ asReference: 144, of: 144 });
    expect(right).toBe(134);
  });

  it('a bf16 cache changes no answer', async () => {
    const { asReference, right } = await score({ kv: 'bf16' });
    expect(asReference).toBeGreaterThanOrEqual(144);
    expect(right).toBeGreaterThanOrEqual(134);
  });

  it('the image preset gives the recorded accuracy', async () => {
    const { asReference, right } = await score({ method: sparseVila() });
    expect(asReference).toBeGreaterThanOrEqual(136);
    expect(right).toBeGreaterThanOrEqual(130);
  });

  it('each turn alone, dense and sparse', async () => {
    expect((await score({ history: 'forget' })).right).toBeGreaterThanOrEqual(135);
    expect((await score({ history: 'forget', method: sparseVila() })).right).toBeGreaterThanOrEqual(128);
  });

  it('compact positions lose what is known of re-indexed tokens: a third of the answers', async () => {
    const { right } = await score({ method: sparseVila({ positions: 'compact' }) });
    expect(right).toBeGreaterThanOrEqual(80);
    expect(right).toBeLessThan(110);
  });
});
