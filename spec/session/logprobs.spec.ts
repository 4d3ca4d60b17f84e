// Log-probabilities and the bias of logits, against plain arithmetic on the decoder's scores.

import { type AskOptions, load, type Model, openEngine } from '../../src';
import { floats } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import { createSession } from '../../src/session/session';
import { logprobsOf } from '../../src/text/logprobs';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { scripted } from '../support/scripted';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

const LIST = 'List the red objects.';
const image = { images: [scene(1)] };

/** The model, with a copy of all scores it computes. */
function recording(): { model: typeof model; rows: Float32Array[] } {
  const rows: Float32Array[] = [];
  const scores: typeof model.decoder.scores = (x, at) => {
    const values = model.decoder.scores(x, at);
    rows.push(floats(values).slice());
    return values;
  };
  return { model: { ...model, decoder: { ...model.decoder, scores } }, rows };
}

/** Ids by descending logit, and each one's natural log-probability, by the definition. */
function plain(logits: Float32Array): { id: number; logprob: number }[] {
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
  return Array.from(logits, (logit, id) => ({ id, logprob: logit - Math.log(total) })).sort(
    (a, b) => b.logprob - a.logprob || a.id - b.id,
  );
}

async function turn(options: AskOptions, of: typeof model = model) {
  using chat = createSession(of);
  const answer = chat.ask(LIST, { ...image, ...options });
  const pieces = [];
  for await (const piece of answer.pieces()) pieces.push(piece);
  return { pieces, text: await answer, stats: answer.stats };
}

it.each([
  ['greedy', {}],
  ['temperature 2 and a bias', { temperature: 2, seed: 3, logitBias: { 5: 3, 40: -1.5 } }],
  ['a penalty', { repetitionPenalty: 1.3 }],
])('are those of the raw logits: %s', async (_, sampling: AskOptions) => {
  const recorded = recording();
  const { pieces, text, stats } = await turn({ ...sampling, logprobs: 4, maxTokens: 6 }, recorded.model);
  const tokens = pieces.flatMap((piece) => piece.tokens);
  expect(tokens).toEqual(stats?.logprobs);
  expect(tokens).toHaveLength(stats?.tokens.generated ?? -1);
  expect(pieces.map((piece) => piece.text).join('')).toBe(text);
  expect(
    tokens
      .map((token) => token.text)
      .join('')
      .trim(),
  ).toBe(text.trim());
  for (const [i, token] of tokens.entries()) {
    const ranked = plain(recorded.rows[i] as Float32Array);
    expect(token.top.map(({ id }) => id)).toEqual(ranked.slice(0, 4).map(({ id }) => id));
    for (const [at, { logprob }] of token.top.entries()) expect(logprob).toBeCloseTo(ranked[at]?.logprob ?? 0, 9);
    expect(token.logprob).toBeCloseTo(ranked.find(({ id }) => id === token.id)?.logprob ?? 0, 9);
    expect(Buffer.from(token.bytes).toString()).toBe(token.text);
  }
});

it('ties are ranked by id, and huge logits overflow nowhere', () => {
  const logits = Float32Array.of(1000, 3e38, 3e38, -3e38, 3e38);
  const { top, logprob } = logprobsOf(logits, 3, 3, model.tokenizer.bytes);
  expect(top.map((token) => [token.id, token.logprob])).toEqual([1, 2, 4].map((id) => [id, -Math.log(3)]));
  expect(logprob).toBeLessThan(-5e38);
});

it('0 reports the chosen tokens alone, and without the option no piece has tokens', async () => {
  const none = await turn({ logprobs: 0 });
  expect(none.stats?.logprobs?.map(({ top }) => top.length)).toEqual(none.stats?.logprobs?.map(() => 0));
  const without = await turn({});
  expect(without.pieces.every(({ tokens }) => tokens.length === 0)).toBe(true);
  expect(without.stats?.logprobs).toBeUndefined();
  expect(without.text).toBe(none.text);
});

it('tokens that give no text yet belong to the next piece, and a cut character to the last', async () => {
  using chat = createSession(scripted(model, 'a👍b'));
  const ids = model.tokenizer.encode('a👍b');
  const pieces = [];
  for await (const piece of chat.ask('Say it.', { logprobs: 0 }).pieces()) pieces.push(piece);
  expect(pieces.map(({ text }) => text)).toEqual(['a', '👍', 'b']);
  expect(pieces.flatMap(({ tokens }) => tokens.map(({ id }) => id))).toEqual(ids);
  expect(pieces[1]?.tokens.length).toBe(ids.length - 2);
});

it('an engine reports the same', async () => {
  const options = { logprobs: 2, logitBias: { 40: 1.5 }, maxTokens: 5 };
  const { stats, text } = await turn(options);
  await using engine = await openEngine(TINY);
  const content = [{ kind: 'image' as const, image: scene(1) }, LIST];
  const found = [];
  for await (const event of engine.run({ messages: [{ role: 'user', content }], ...options }))
    if (event.type === 'text') found.push(event);
  expect(found.map((event) => event.text).join('')).toBe(text);
  expect(found.flatMap((event) => event.logprobs)).toEqual(stats?.logprobs);
});

describe('logitBias', () => {
  it('a token with +100 is repeated; one with -100 is never drawn', async () => {
    const [only = -1] = model.tokenizer.encode('7');
    expect((await turn({ logitBias: { [only]: 100 }, maxTokens: 4 })).text).toBe('7777');
    const dense = await turn({ logprobs: 0 });
    const [first] = dense.stats?.logprobs ?? [];
    const banned = await turn({ logprobs: 0, logitBias: { [first?.id ?? -1]: -100 } });
    expect(banned.stats?.logprobs?.map(({ id }) => id)).not.toContain(first?.id);
  });

  it.each([
    [{}],
    [{ temperature: 1.5, topK: 20, topP: 0.9, seed: 11 }],
    [{ repetitionPenalty: 1.2, temperature: 1, seed: 4 }],
  ])('draws as from logits to which it was added: %j', async (sampling) => {
    const letters = ['F', 'W', '6', 's', ','].flatMap((text) => model.tokenizer.encode(text));
    const logitBias = Object.fromEntries(letters.map((id, i) => [id, i - 12.25]));
    const added: typeof model.decoder.scores = (x, at) => {
      const values = model.decoder.scores(x, at);
      const sums = floats(values).slice();
      for (const [id, value] of Object.entries(logitBias))
        sums[Number(id)] = Math.fround((sums[Number(id)] ?? 0) + value);
      values.dispose();
      return start().tf.tensor(sums, [1, sums.length], 'float32');
    };
    const shifted = { ...model, decoder: { ...model.decoder, scores: added } };
    const options = { ...sampling, maxTokens: 12 };
    const expected = await turn(options, shifted);
    expect((await turn({ ...options, logitBias })).text).toBe(expected.text);
    expect((await turn(options)).text).not.toBe(expected.text);
  });

  it.each([
    [{ logprobs: -1 }, 'logprobs'],
    [{ logprobs: 101 }, 'logprobs'],
    [{ logitBias: { 1: 101 } }, 'from -100 to 100'],
    [{ logitBias: { 1: Number.NaN } }, 'from -100 to 100'],
    [{ logitBias: { '-1': 1 } }, 'token ids'],
    [{ logitBias: { 99999999: 1 } }, 'token ids'],
    [{ logitBias: { dog: 1 } }, 'token ids'],
    [{ logitBias: [1] }, 'logitBias'],
  ])('%j is refused', async (options, message) => {
    using chat = model.session();
    const error = await errorOf(async () => chat.ask(LIST, options as unknown as AskOptions));
    expect([error.code, error.message]).toEqual(['ERR_OPTION_INVALID', expect.stringContaining(message)]);
  });

  it('frees its tensors, also when the answer is left early', async () => {
    await turn({ logitBias: { 1: 1 }, maxTokens: 1 });
    await withoutLeak(async () => {
      using chat = model.session();
      for await (const _ of chat.ask(LIST, { ...image, logprobs: 2, logitBias: { 1: 1 } })) break;
    });
  });
});
