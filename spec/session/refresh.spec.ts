// What an answer attends can be selected again while it is written: keeping all rows stays dense bit for bit, verified answers stay those of dense
// decoding, and nothing of a turn that fails or is taken back is left.

import { dense, load, type Model, refreshed, reKv, type SparsityMethod, snapKv, sparseVila } from '../../src';
import { createSession } from '../../src/session/session';
import { conversations, scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { compareBits } from '../support/nmse';
import { draftsOf, tell, withoutRetrieval } from '../support/verified';
import { watch } from '../support/watch';

const QUESTIONS = conversations()[0]?.turns.map(({ question }) => question) ?? [];
const every = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);

/** Attends one row, the most relevant one, and looks for another after each token. */
const oneRow: SparsityMethod = {
  name: 'one-row',
  retrieve: {
    refresh: { every: 1, rejected: 1 },
    select: (scores) => Int32Array.of(scores.indexOf(Math.max(...scores))),
  },
};

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

/** Answers of ten tokens to some questions about a picture. */
async function said(method: SparsityMethod, maxTokens = 10) {
  const watched = watch({ ...model, stopIds: [] });
  using chat = createSession(watched.model, { method });
  const stats: unknown[] = [];
  const texts: string[] = [];
  for (const [turn, question] of QUESTIONS.slice(0, 2).entries()) {
    const answer = chat.ask(question, { ...(turn === 0 && { images: [scene(0)] }), maxTokens, temperature: 0 });
    texts.push(await answer.text());
    stats.push(answer.stats);
  }
  return {
    texts,
    logits: [...watched.logits],
    calls: watched.calls,
    stats: stats as { refreshes: number; tokens: { activeDecode: number } }[],
  };
}

it('is dense bit for bit where everything is kept', async () => {
  const all: SparsityMethod = {
    name: 'all',
    retrieve: { refresh: { every: 2 }, select: ({ length }) => every(length) },
  };
  const [own, dense] = [await said(all), await said({ name: 'none' })];
  expect(own.texts).toEqual(dense.texts);
  expect(compareBits(own.logits, dense.logits)).toBe('identical');
  // Of ten tokens nine are run: the third, sixth and ninth attend everything.
  expect(own.stats.map(({ refreshes }) => refreshes)).toEqual([3, 3]);
  expect(dense.stats.map(({ refreshes }) => refreshes)).toEqual([0, 0]);
});

it('gives the mean of the relevance of the question and of the last token, and counts the rows of its steps', async () => {
  const seen: Float32Array[] = [];
  const method: SparsityMethod = {
    name: 'seen',
    retrieve: {
      refresh: { every: 3 },
      select: (scores, layer) => {
        if (layer === 1) seen.push(scores.slice());
        return Int32Array.of(0);
      },
    },
  };
  const { stats, calls } = await said(method, 5);
  // Twice in each of two turns.
  expect(seen.map(({ length }) => length)).toEqual([100, 100, 100, 100]);
  const [asked, mixed] = seen as [Float32Array, Float32Array];
  const steps = calls.filter(({ positions }) => positions.length === 1);
  const observed = steps.findIndex(({ columns }) => columns.length > 0);
  expect(observed).toBe(3);
  expect(steps[observed]?.views).toBeUndefined();
  // The visual rows end where the view's tail begins.
  const first = (steps[0]?.views?.[1]?.tail ?? 0) - 100;
  const columns = steps[observed]?.columns[1] ?? new Float32Array();
  expect(mixed).toEqual(asked.map((own, i) => (own + (columns[first + i] as number)) / 2));
  expect(mixed).not.toEqual(asked);
  // Of four steps one attends 100 rows, and three attend one.
  expect(stats[0]?.tokens.activeDecode).toBe((100 + 3) / 4);
});

it('changes what later tokens attend', async () => {
  const growing = (refresh?: { every: number }): SparsityMethod => {
    let calls = 0;
    const { layers } = model.decoder.config;
    const select = ({ length }: Float32Array): Int32Array => every(calls++ < layers ? 1 : length);
    return { name: 'growing', retrieve: { ...(refresh && { refresh }), select } };
  };
  const answer = async (method: SparsityMethod) => {
    using chat = model.session({ method });
    const given = chat.ask('Read row 4.', { images: [scene(0)], temperature: 0, maxTokens: 6 });
    await given.text();
    return given.stats?.retrieved?.map(({ length }) => length);
  };
  expect(await answer(growing())).toEqual([1, 1, 1, 1]);
  expect(await answer(growing({ every: 1 }))).toEqual([100, 100, 100, 100]);
});

it.each([
  ['one row', oneRow],
  ['SparseVILA', refreshed(sparseVila({ decodeSparsity: 0.97 }), { every: 2 })],
] as const)('verified answers are dense: %s', async (_, method) => {
  const restore = draftsOf((round) => (round % 4) + 1);
  try {
    const turns = QUESTIONS.slice(0, 3).map((question, i) => ({ question, ...(i === 0 && { images: [scene(0)] }) }));
    const dense = await tell(model, { method: withoutRetrieval(method) }, turns);
    const lossless = await tell(
      model,
      { method: method },
      turns.map((turn) => ({ ...turn, verify: 'dense' as const })),
    );
    expect(lossless.texts).toEqual(dense.texts);
    expect(lossless.tokens).toEqual(dense.tokens);
    for (const [turn, rows] of dense.rows.entries())
      expect(compareBits(lossless.rows[turn] ?? [], rows)).toBe('identical');
    expect(lossless.drafted).toBeGreaterThan(0);
  } finally {
    restore();
  }
});

it('rewinds, forks, aborts and fails without a trace', async () => {
  const open = (method: SparsityMethod) => createSession({ ...model, stopIds: [] }, { method });
  const asked = { temperature: 0, maxTokens: 8 };
  let calls = 0;
  const failing: SparsityMethod = {
    name: 'failing',
    retrieve: {
      refresh: { every: 2 },
      select: ({ length }) => {
        if (++calls > 2 * model.decoder.config.layers) throw new Error('no more');
        return every(length);
      },
    },
  };
  {
    using warm = open(oneRow);
    await warm.ask('Where?', { ...asked, images: [scene(0)] });
  }
  await withoutLeak(async () => {
    using chat = open(oneRow);
    await chat.ask(QUESTIONS[0] ?? '', { ...asked, images: [scene(0)] });
    const mark = chat.mark();
    const first = await chat.ask(QUESTIONS[1] ?? '', asked);
    chat.rewind(mark);
    using fork = chat.fork();
    const controller = new AbortController();
    const reading = (async () => {
      for await (const _ of chat.ask(QUESTIONS[2] ?? '', { ...asked, signal: controller.signal })) controller.abort();
    })();
    await expect(reading).rejects.toThrow(/abort/i);
    expect(await chat.ask(QUESTIONS[1] ?? '', asked)).toBe(first);
    expect(await fork.ask(QUESTIONS[1] ?? '', asked)).toBe(first);
    using broken = open(failing);
    await expect(broken.ask('Where?', { ...asked, images: [scene(0)] }).text()).rejects.toMatchObject({
      code: 'ERR_METHOD',
    });
    expect(broken.length).toBe(0);
  });
});

it.each([
  ['every', {}],
  ['every', { every: 0 }],
  ['every', { rejected: 1.5 }],
  ['every', { every: 4, rejectd: 1 }],
])('an object without %s is refused: %j', (word, refresh) => {
  const method = { name: 'x', retrieve: { ...sparseVila().retrieve, refresh } } as unknown as SparsityMethod;
  expect(() => model.session({ method })).toThrow(
    expect.objectContaining({ code: 'ERR_METHOD', message: expect.stringContaining(word) }),
  );
});

it.each([
  ['one that discards rows', snapKv()],
  ['one that retrieves frames', reKv()],
  ['one that retrieves nothing', dense()],
])('refuses a method: %s', (_, method) => {
  const refused = expect.objectContaining({
    code: 'ERR_OPTION_INVALID',
    message: expect.stringContaining(method.name),
  });
  expect(() => refreshed(method, { every: 4 })).toThrow(refused);
  if (method.retrieve === undefined) return;
  const own = { ...method, retrieve: { ...method.retrieve, refresh: { every: 4 } } };
  expect(() => model.session({ method: own })).toThrow(expect.objectContaining({ code: 'ERR_METHOD' }));
});
