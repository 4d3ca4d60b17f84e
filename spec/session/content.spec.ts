// What a model tells of a content without an answer: its tokens, and its vector.

import { load, METHODS, type Model } from '../../src';
import { countContent } from '../../src/engine/count';
import { floats } from '../../src/ops/run';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

const QUESTION = 'Where is the yellow 2?';
const about = (i: number) => [{ kind: 'image' as const, image: scene(i) }, QUESTION];

describe('countTokens', () => {
  it.each(
    METHODS.filter(({ uses, frameScores }) => uses.prefill && !frameScores)
      .map(({ name }) => name)
      .concat('dense'),
  )('counts what a turn uses, and the tower does not run: %s', async (method) => {
    const entry = METHODS.find(({ name }) => name === method);
    using chat = model.session({ method: entry?.create({ prefillSparsity: 0.6, decodeSparsity: 0.75 }) as never });
    const answer = chat.ask(about(1), { maxTokens: 1 });
    await answer;
    const { prompt = 0, visualSeen = 0, visualKept = 0 } = answer.stats?.tokens ?? {};
    let encoded = 0;
    const encode: typeof model.encode = (...given) => {
      encoded++;
      return model.encode(...given);
    };
    const counts = await countContent({ ...model, encode }, about(1), { sparsity: { method } });
    expect([counts.visualSeen, encoded]).toEqual([visualSeen, 0]);
    // A method that drops later or merges keeps another number.
    if (method === 'sparsevila' || method === 'dense') {
      expect(counts).toEqual({ text: prompt - visualKept, visualSeen, visualKept });
    }
  });

  it('counts a text alone, and refuses what a question refuses', async () => {
    using chat = model.session();
    const answer = chat.ask(QUESTION, { maxTokens: 1 });
    await answer;
    expect(await model.countTokens(QUESTION)).toEqual({
      text: answer.stats?.tokens.prompt,
      visualSeen: 0,
      visualKept: 0,
    });
    const codes = [
      errorOf(() => model.countTokens('')),
      errorOf(() => model.countTokens(QUESTION, { sparsity: { method: 'magic' } })),
      errorOf(() => model.countTokens([{ kind: 'image', image: 'no/such.png' }, QUESTION])),
    ];
    expect((await Promise.all(codes)).map(({ code }) => code)).toEqual([
      'ERR_QUESTION',
      'ERR_OPTION_INVALID',
      'ERR_IMAGE_NOT_FOUND',
    ]);
    const reason = new Error('stop');
    await expect(model.countTokens(QUESTION, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

it('tokenize gives the ids of encode, whose texts join to the text', () => {
  const tokens = model.tokenize(QUESTION);
  expect(tokens.map(({ id }) => id)).toEqual(model.tokenizer.encode(QUESTION));
  expect(tokens.map(({ text }) => text).join('')).toBe(QUESTION);
});

describe('embed', () => {
  const dot = (a: Float32Array, b: Float32Array): number =>
    a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);

  it('is the final hidden state of the last row of the prompt, of length 1', async () => {
    // The whole prompt of a text, run by hand.
    using chat = model.session();
    const answer = chat.ask(QUESTION, { maxTokens: 1 });
    await answer;
    const text = model.template.render([{ role: 'user', content: QUESTION }], { addGenerationPrompt: true });
    const ids = [...model.tokenizer.prefixIds, ...model.tokenizer.encode(text)];
    const cache = model.decoder.cache('bf16');
    const x = model.decoder.embed(ids);
    const y = await model.decoder.forward(x, [{ cache, positions: [...ids.keys()] }], { pace: async () => undefined });
    const normalized = model.decoder.norm(y);
    const last = floats(normalized).slice(-model.decoder.config.hiddenSize);
    for (const one of [x, y, normalized, cache]) one.dispose();
    const vector = await model.embed(QUESTION);
    expect(answer.stats?.tokens.prompt).toBe(ids.length);
    expect(dot(vector, vector)).toBeCloseTo(1, 5);
    expect(dot(vector, last) / Math.sqrt(dot(last, last))).toBeCloseTo(1, 5);
  });

  it('depends on the picture, the text and the method, and on nothing else', async () => {
    const [one, again, other, words] = await Promise.all([
      model.embed(about(1)),
      model.embed(about(1)),
      model.embed(about(2)),
      model.embed([about(1)[0] as never, 'Read row 7.']),
    ]);
    expect(again).toEqual(one);
    for (const vector of [other, words]) expect(dot(one, vector)).toBeLessThan(0.9999);
    expect(one).toHaveLength(model.decoder.config.hiddenSize);
  });

  it('frees its memory, and can be aborted', async () => {
    await model.embed(QUESTION);
    await withoutLeak(async () => {
      await model.embed(QUESTION);
      expect((await errorOf(() => model.embed(''))).code).toBe('ERR_QUESTION');
    });
    const reason = new Error('stop');
    await expect(model.embed(about(1), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});
