// Answers held to JSON and to schemas, through a session and an engine.

import { type AskOptions, load, type Model, openEngine } from '../../src';
import type { VisionLanguageModel } from '../../src/models/model';
import { float32 } from '../../src/ops/run';
import { createSession } from '../../src/session/session';
import { uniform } from '../../src/text/random';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { scripted } from '../support/scripted';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

const image = { images: [scene(1)] };
const QUESTION = 'List the red objects.';
const SCHEMA = {
  type: 'object',
  properties: {
    objects: { type: 'array', items: { enum: ['F', 'W', 'star'] }, maxItems: 4 },
    count: { type: 'integer', minimum: 0, maximum: 9 },
  },
  required: ['objects', 'count'],
  additionalProperties: false,
};
const format = { type: 'schema', schema: SCHEMA } as const;

/** The model with random scores instead of its own: f32, about standard normal times 3. */
function ofRandomWeights(seed: number): VisionLanguageModel {
  const random = uniform(seed);
  const scores: typeof model.decoder.scores = () => {
    const values = Float32Array.from({ length: model.decoder.config.vocabSize }, () => 6 * random() - 3);
    return float32(values, [1, values.length]);
  };
  return { ...model, decoder: { ...model.decoder, scores } };
}

async function turn(options: AskOptions, of: VisionLanguageModel = model) {
  using chat = createSession(of);
  const answer = chat.ask(QUESTION, { ...image, ...options });
  return { text: await answer, stats: answer.stats };
}

it('greedy: the answer is the most probable text of the schema', async () => {
  const { text, stats } = await turn({ format, maxTokens: 60 });
  expect(JSON.parse(text)).toEqual({ objects: expect.any(Array), count: expect.any(Number) });
  expect(stats?.finish).toBe('stop');
});

it.each([1, 2, 3, 4])('random weights, temperature 1, seed %i', async (seed) => {
  const { text, stats } = await turn({ format, maxTokens: 400, temperature: 1, seed }, ofRandomWeights(seed));
  expect(stats?.finish).toBe('stop');
  const { objects, count, ...others } = JSON.parse(text);
  expect([others, count]).toEqual([{}, expect.any(Number)]);
  expect(objects.every((name: string) => SCHEMA.properties.objects.items.enum.includes(name))).toBe(true);
});

it('an answer that is free anyway is not changed, and the penalty and the bias still count', async () => {
  const said = '{"count":7}';
  const whole = {
    type: 'object',
    properties: { count: { type: 'integer' } },
    required: ['count'],
    additionalProperties: false,
  };
  const options = { format: { type: 'schema' as const, schema: whole } };
  expect((await turn(options, scripted(model, said))).text).toBe(said);
  const [seven = -1] = model.tokenizer.encode('7');
  const [eight = -1] = model.tokenizer.encode('8');
  const biased = { ...options, logitBias: { [seven]: -100, [eight]: 5 } };
  expect((await turn(biased, scripted(model, said))).text).not.toContain('7');
});

it('ends with the last token, without another step of the decoder', async () => {
  const { stats } = await turn({ format: { type: 'schema', schema: { const: 12 } } });
  expect(stats).toMatchObject({ finish: 'stop', tokens: { generated: 2 } });
});

it('a cut by maxTokens is reported as length', async () => {
  const { text, stats } = await turn({ format, maxTokens: 3 });
  expect(stats).toMatchObject({ finish: 'length', tokens: { generated: 3 } });
  expect(() => JSON.parse(text)).toThrow();
});

it('any JSON is an object or a list', async () => {
  for (const seed of [1, 2, 3]) {
    const { text, stats } = await turn(
      { format: { type: 'json' }, temperature: 1, seed, maxTokens: 120 },
      ofRandomWeights(seed),
    );
    expect(text).toMatch(/^[[{]/);
    if (stats?.finish === 'stop') expect(typeof JSON.parse(text)).toBe('object');
  }
});

it('log-probabilities are of all tokens, the forbidden ones too', async () => {
  const { stats } = await turn({ format, logprobs: 3, maxTokens: 2 });
  const free = await turn({ logprobs: 3, maxTokens: 1 });
  expect(stats?.logprobs?.[0]?.top).toEqual(free.stats?.logprobs?.[0]?.top);
  expect(stats?.logprobs?.[0]?.text).toBe('{');
});

it('the conversation continues after a constrained answer', async () => {
  using chat = model.session();
  const first = await chat.ask(QUESTION, { ...image, format });
  expect(await chat.ask(QUESTION)).not.toBe(first);
  expect(JSON.parse(await chat.ask(QUESTION, { format }))).toHaveProperty('count');
});

it('an engine gives the same, and refuses a schema before any work', async () => {
  const { text } = await turn({ format });
  await using engine = await openEngine(TINY);
  const messages = [{ role: 'user' as const, content: [{ kind: 'image' as const, image: scene(1) }, QUESTION] }];
  let said = '';
  for await (const event of engine.run({ messages, format })) if (event.type === 'text') said += event.text;
  expect(said).toBe(text);
  const refused = await errorOf(async () => {
    for await (const _ of engine.run({ messages, format: { type: 'schema', schema: { not: {} } } }));
  });
  expect([refused.code, refused.message]).toEqual(['ERR_OPTION_INVALID', expect.stringContaining('not')]);
});

it('frees its tensors', async () => {
  await turn({ format, maxTokens: 2 });
  await withoutLeak(async () => {
    using chat = model.session();
    for await (const _ of chat.ask(QUESTION, { ...image, format, logitBias: { 1: 1 } })) break;
  });
});
