// Lossless decoding: with `verify: 'dense'`, tokens, log-probabilities and the cache are those of dense decoding bit for bit, whatever is drafted.

import { join } from 'node:path';
import { dense, load, METHODS, type Model, type SessionOptions, type SparsityMethod, sparseVila } from '../../src';
import { conversations, FIXTURES, scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { compareBits } from '../support/nmse';
import { type Asked, draftsOf, type Told, tell, withoutRetrieval } from '../support/verified';

const QUESTIONS = conversations().map(({ turns }) => turns.map(({ question }) => question));
const q = (image: number, turn: number): string => QUESTIONS[image]?.[turn] ?? '';
/** Attends one visual row of each layer: nearly all drafts are wrong where the picture matters. */
const oneRow: SparsityMethod = { name: 'one-row', retrieve: { select: () => Int32Array.of(0) } };

let model: Model;
let restore = (): void => undefined;
beforeAll(async () => {
  model = await load(TINY);
});
beforeEach(() => {
  restore = draftsOf((round) => (round % 4) + 1);
});
afterEach(() => restore());
afterAll(() => model.dispose());

const turns = (options: Omit<Asked, 'question'> = {}): Asked[] =>
  [0, 1, 2].map((turn) => ({ question: q(0, turn), ...(turn === 0 ? { images: [scene(0)] } : {}), ...options }));

const verified = (asked: readonly Asked[]): Asked[] => asked.map((turn) => ({ ...turn, verify: 'dense' }));

function expectEqual(lossless: Told, dense: Told): void {
  expect(lossless.texts).toEqual(dense.texts);
  expect(lossless.tokens).toEqual(dense.tokens);
  for (const [turn, rows] of dense.rows.entries())
    expect(compareBits(lossless.rows[turn] ?? [], rows)).toBe('identical');
}

/** Holds a conversation both ways and compares them. */
async function both(
  method: SparsityMethod,
  asked: readonly Asked[],
  options: Omit<SessionOptions, 'method'> & { readonly model?: Model } = {},
): Promise<Told> {
  const { model: own = model, ...session } = options;
  const dense = await tell(own, { ...session, method: withoutRetrieval(method) }, asked);
  const lossless = await tell(own, { ...session, method }, verified(asked));
  expectEqual(lossless, dense);
  return lossless;
}

const RATIOS = { prefillSparsity: 0.5, decodeSparsity: 0.9 };
// A method that retrieves frames from a host tier is refused with verify.
const RETRIEVING = METHODS.filter(({ name, create }) => {
  const { retrieve } = create(RATIOS);
  return name === 'fastv' || (retrieve !== undefined && retrieve.frames === undefined);
});
it.each(RETRIEVING.map(({ name, create }) => [name, create(RATIOS)] as const))(
  '%s: greedy answers are dense',
  async (_, method) => {
    const { drafted } = await both(method, turns());
    const isDrafting = method.retrieve !== undefined && method.retrieve.permanent !== true;
    expect(drafted > 0).toBe(isDrafting);
  },
);

it('most drafts are wrong if one visual row is attended, and the answers are dense', async () => {
  const { drafted, accepted } = await both(oneRow, turns());
  expect(accepted).toBeLessThan(0.8 * drafted);
  const { texts } = await tell(model, { method: oneRow }, turns());
  const { texts: dense } = await tell(model, {}, turns());
  expect(texts).not.toEqual(dense);
});

const SCHEMA = {
  type: 'object',
  properties: { color: { enum: ['red', 'green', 'blue'] }, count: { type: 'integer' } },
  required: ['color', 'count'],
};
it.each([
  ['seeded sampling', { temperature: 1, seed: 5 }],
  ['hot sampling, top-k and top-p', { temperature: 3, topK: 50, topP: 0.95, seed: 11, maxTokens: 24 }],
  ['a repetition penalty', { repetitionPenalty: 1.5, temperature: 0 }],
  ['a repetition penalty with sampling', { repetitionPenalty: 1.3, temperature: 2, seed: 3, maxTokens: 24 }],
  ['a bias', { logitBias: { 5: 20, 7: -100 }, maxTokens: 12 }],
  ['a schema', { format: { type: 'schema', schema: SCHEMA }, maxTokens: 40 }],
  ['a schema with sampling', { format: { type: 'schema', schema: SCHEMA }, temperature: 2, seed: 8, maxTokens: 40 }],
  ['a limit', { maxTokens: 2 }],
  ['a stop string', { stop: ['e'] }],
] as const)('%s: tokens and log-probabilities are dense', async (_, options) => {
  for (const method of [sparseVila({ decodeSparsity: 0.9 }), oneRow]) await both(method, turns(options));
});

it('tokens that are looked up in the conversation are verified too, without any retrieval', async () => {
  restore();
  restore = draftsOf((round) => (round % 4) + 1, 'lookup');
  const again = [0, 1, 0, 1].map((turn, i) => ({ question: q(0, turn), ...(i === 0 ? { images: [scene(0)] } : {}) }));
  for (const method of [dense(), oneRow]) {
    const { drafted, accepted } = await both(method, again);
    expect(accepted).toBeGreaterThan(0);
    expect(accepted).toBeLessThan(drafted);
  }
});

it('forgets, rewinds and forks as dense decoding does', async () => {
  await both(oneRow, turns(), { history: 'forget' });
  for (const verify of [{}, { verify: 'dense' }] as const) {
    using chat = model.session({ method: verify.verify ? oneRow : withoutRetrieval(oneRow) });
    await chat.ask(q(0, 0), { images: [scene(0)], ...verify });
    const mark = chat.mark();
    const first = await chat.ask(q(0, 1), verify);
    using fork = chat.fork();
    chat.rewind(mark);
    expect(await chat.ask(q(0, 1), verify)).toBe(first);
    expect(await fork.ask(q(0, 2), verify)).toBe(await chat.ask(q(0, 2), verify));
  }
});

it('an answer that fills the context is dense', async () => {
  using chat = model.session();
  await chat.ask(q(0, 0), { images: [scene(0)], maxTokens: 1 });
  for (const more of [2, 3, 4, 5]) {
    const dense = { maxTokens: 64, temperature: 4, seed: 3, images: [scene(0)], question: q(0, 0) };
    const { tokens } = await both(oneRow, [dense], { contextLength: chat.length + more });
    expect(tokens).toMatchObject([{ finish: 'length' }]);
  }
});

it('a consumer that leaves early keeps the tokens so far, and the next turn is dense', async () => {
  const answers = async (method: SparsityMethod, verify: { verify?: 'dense' }): Promise<string[]> => {
    using chat = model.session({ method });
    const texts: string[] = [];
    for await (const piece of chat.ask(q(0, 3), { images: [scene(0)], ...verify })) {
      texts.push(piece);
      if (texts.length === 2) break;
    }
    texts.push(String(chat.length), await chat.ask(q(0, 1), verify), String(chat.length));
    return texts;
  };
  expect(await answers(oneRow, { verify: 'dense' })).toEqual(await answers(withoutRetrieval(oneRow), {}));
});

it('an aborted turn leaves nothing behind', async () => {
  using chat = model.session({ method: oneRow });
  await chat.ask(q(0, 0), { images: [scene(0)], verify: 'dense' });
  const { length } = chat;
  await withoutLeak(async () => {
    const controller = new AbortController();
    const answer = chat.ask(q(0, 1), { verify: 'dense', signal: controller.signal });
    await expect(
      (async () => {
        for await (const _ of answer) controller.abort();
      })(),
    ).rejects.toThrow('abort');
  });
  expect(chat.length).toBe(length);
});

it.each([
  ...['gemma3/scan', 'paligemma/one', 'llava_onevision/large', 'llava_next/vicuna', 'internvl/layer'],
  ...['smolvlm/smolvlm', 'smolvlm/idefics3', 'llava/llava-llama', 'nvila/tiles', 'vila/linear'],
  ...['qwen_vl/qwen2-vl', 'qwen_vl/qwen2.5-vl', 'qwen_vl/qwen3-vl', 'qwen_vl/qwen3.5'],
])('%s: greedy and sampled answers are dense', async (name) => {
  const folder = join(FIXTURES, name);
  const loaded = await load(folder);
  try {
    const own = { ...loaded, stopIds: [] };
    const asked = ['What is in the picture?', 'And how does this one differ?'].map((question, turn) => ({
      ...{ question, maxTokens: 10, images: turn === 0 ? [scene(0)] : [] },
      ...(turn === 0 ? { temperature: 0 } : { temperature: 1, seed: 7 }),
    }));
    for (const method of [sparseVila({ prefillSparsity: 0.5, decodeSparsity: 0.9 }), oneRow]) {
      const { drafted } = await both(method, asked, { model: own });
      expect(drafted).toBeGreaterThan(0);
    }
  } finally {
    loaded.dispose();
  }
});
