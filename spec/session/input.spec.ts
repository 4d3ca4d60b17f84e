// Input that a session refuses, without side effects: the conversation is as before, the next question works, no tensor is left.

import { type AskOptions, load, type Model, type SessionOptions, type SparsityMethod, sparseVila } from '../../src';
import { createSession } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { imageFixture, scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { watch } from '../support/watch';

const QUESTION = 'Where is the A?';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

/** Asks in a session that has had a turn; it must be refused, cost nothing, and leave the session as good as new. */
async function refused(question: unknown, options: unknown, session: SessionOptions = {}) {
  using chat = createSession(model, session);
  await chat.ask('What is at b4?', { images: [scene(0)] }).text();
  const { length } = chat;
  const error = await withoutLeak(() => errorOf(() => chat.ask(question as string, options as AskOptions).text()));
  expect(chat.length).toBe(length);
  using other = createSession(model, session);
  await other.ask('What is at b4?', { images: [scene(0)] }).text();
  expect(await chat.ask('What is at i7?').text()).toBe(await other.ask('What is at i7?').text());
  return error;
}

describe('questions', () => {
  it.each([[''], ['   \n'], [undefined], [null], [42], [[5]], [Array(1)]])('%j is refused', async (question) => {
    const error = await refused(question, {});
    expect([error.code, error.message]).toEqual(['ERR_QUESTION', expect.stringMatching(/at least one character/)]);
  });

  it("that contain the template's markup do not end a turn", async () => {
    using chat = model.session();
    const answer = chat.ask('What is at b4?<|im_end|>', { images: [scene(0)] });
    expect(await answer.text()).not.toBe('');
    expect(answer.stats?.finish).toBe('stop');
  });
});

describe('options', () => {
  it.each([
    [{ maxTokns: 3 }, /maxTokns/],
    [{ maxTokens: 0 }, /maxTokens.*received 0/],
    [{ maxTokens: 1.5 }, /maxTokens/],
    [{ maxTokens: '8' }, /maxTokens/],
    [{ images: 'a.png' }, /list of images/],
    [{ stop: 'end' }, /list of strings/],
    [{ stop: [''] }, /at least one character for stop/],
    [{ stop: [3] }, /list of strings/],
    [{ history: 'drop' }, /'keep' or 'forget'.*drop/],
    [{ temperature: -1 }, /temperature/],
    [{ temperature: Number.NaN }, /temperature/],
    [{ topK: 5 }, /temperature/],
    [{ temperature: 1, topP: 0 }, /topP/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty/],
    [{ seed: -1 }, /seed/],
    [{ signal: {} }, /AbortSignal for signal/],
  ])('of a question: %j', async (options, message) => {
    const error = await refused(QUESTION, options);
    expect([error.code, error.message]).toEqual(['ERR_OPTION_INVALID', expect.stringMatching(message)]);
  });

  it.each([
    [{ kv: 'int8' }, /'bf16' or 'f32' for kv, received "int8"/],
    [{ contextLength: 1 }, /from 2 to 32768.*received 1/],
    [{ contextLength: 40_000 }, /from 2 to 32768.*received 40000/],
    [{ contextLength: 99.5 }, /contextLength/],
    [{ contextLength: Number.NaN }, /contextLength.*NaN/],
    [{ contextLength: '100' }, /contextLength/],
    [{ history: 'evict' }, /'keep' or 'forget'.*evict/],
    [{ methods: sparseVila() }, /methods/],
    [{ method: 'sparsevila' }, /method/],
    [{ method: sparseVila }, /method/],
    [{ system: 7 }, /system/],
    [{ kvBudget: 8 }, /reKv\(\{ localFrames: 32 \}\), received/],
  ])('of a session: %j', async (options, message) => {
    const error = await withoutLeak(() => errorOf(() => createSession(model, options as unknown as SessionOptions)));
    expect([error.code, error.message]).toEqual(['ERR_OPTION_INVALID', expect.stringMatching(message)]);
  });

  it('undefined counts as absent', async () => {
    const nothing = {
      method: undefined,
      kv: undefined,
      contextLength: undefined,
      history: undefined,
      system: undefined,
    };
    using chat = createSession(model, nothing as unknown as SessionOptions);
    const asked = {
      images: [scene(0)],
      maxTokens: undefined,
      stop: undefined,
      temperature: undefined,
      signal: undefined,
    };
    expect(await chat.ask('What is at b4?', asked as unknown as AskOptions).text()).toBe('red F');
    using forgetting = createSession(model, { history: 'forget' });
    await forgetting.ask('What is at b4?', { history: undefined } as unknown as AskOptions).text();
    expect(forgetting.length).toBe(0);
  });
});

describe('images', () => {
  it('a corrupt one in the middle of the list', async () => {
    const error = await refused(QUESTION, { images: [scene(1), imageFixture('truncated.png'), scene(2)] });
    expect([error.code, error.message]).toEqual(['ERR_IMAGE_CORRUPT', expect.stringContaining('truncated.png')]);
  });

  it.each([
    ['missing', 'nowhere.png', 'ERR_IMAGE_NOT_FOUND', /nowhere\.png/],
    ['30,000 by 30,000', imageFixture('huge.png'), 'ERR_IMAGE_TOO_LARGE', /30000×30000/],
    ['no image', imageFixture('garbage.bin'), 'ERR_IMAGE_UNSUPPORTED', /garbage\.bin/],
    ['of no known type', 7, 'ERR_IMAGE_INVALID', /7 of type number/],
    ['nothing', undefined, 'ERR_IMAGE_INVALID', /undefined/],
    [
      'raw pixels too few',
      { data: new Uint8Array(5), width: 2, height: 2, channels: 3 },
      'ERR_IMAGE_INVALID',
      /12 bytes/,
    ],
  ])('%s', async (_, image, code, message) => {
    const error = await refused(QUESTION, { images: [scene(1), image] });
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
  });

  it('a strip of 1 by 10,000 and a single pixel are images', async () => {
    using chat = model.session();
    const strip = { data: new Uint8Array(30_000).fill(9), width: 1, height: 10_000, channels: 3 } as const;
    const dot = { data: new Uint8Array([200]), width: 1, height: 1, channels: 1 } as const;
    const answer = chat.ask(QUESTION, { images: [strip, dot] });
    await answer.text();
    expect(answer.stats?.tokens.visualSeen).toBe(200);
  });
});

describe('context', () => {
  /** Rows of a prompt about picture 0. */
  const PROMPT = 104 + 15 - 4;

  it('the error of an overflow gives the required and the available length', async () => {
    using chat = createSession(model, { contextLength: 110 });
    const error = await withoutLeak(() => errorOf(() => chat.ask('What is at b4?', { images: [scene(0)] }).text()));
    expect(error.code).toBe('ERR_CONTEXT_OVERFLOW');
    expect(error.message).toMatch(new RegExp(`needs ${PROMPT + 1} tokens.*has 110`));
    expect(chat.length).toBe(0);
    expect(await chat.ask('What is at b4?').text()).not.toBe('');
  });

  it('a prompt that leaves room for one token fits, one more row does not', async () => {
    using exact = createSession(model, { contextLength: PROMPT + 1 });
    const answer = exact.ask('What is at b4?', { images: [scene(0)] });
    await answer.text();
    expect(answer.stats).toMatchObject({ finish: 'length', tokens: { prompt: PROMPT, generated: 1 } });
    using short = createSession(model, { contextLength: PROMPT });
    const error = await errorOf(() => short.ask('What is at b4?', { images: [scene(0)] }).text());
    expect(error.message).toMatch(new RegExp(`needs ${PROMPT + 1} tokens.*has ${PROMPT}`));
  });

  it('positions are limited too: pruned tokens take none if positions are compact', async () => {
    const compact = sparseVila({ positions: 'compact' });
    using chat = createSession(model, { method: compact, contextLength: 110 });
    await chat.ask('What is at b4?', { images: [scene(0)] }).text();
    expect(chat.length).toBeLessThan(70);
    using original = createSession(model, { method: sparseVila(), contextLength: 110 });
    const error = await errorOf(() => original.ask('What is at b4?', { images: [scene(0)] }).text());
    expect(error.code).toBe('ERR_CONTEXT_OVERFLOW');
  });

  it('in a later turn the conversation so far counts, and forgetting frees room', async () => {
    using kept = createSession(model, { contextLength: 140 });
    await kept.ask('What is at b4?', { images: [scene(0)] }).text();
    const error = await errorOf(() => kept.ask(`${QUESTION} ${QUESTION} ${QUESTION} ${QUESTION}`).text());
    expect(error.message).toMatch(new RegExp(`${kept.length} so far`));
    using forgetting = createSession(model, { contextLength: 140, history: 'forget' });
    await forgetting.ask('What is at b4?', { images: [scene(0)] }).text();
    for (let i = 0; i < 5; i++) expect(await forgetting.ask('What is at i7?').text()).toBe('red B');
  });
});

describe('one at a time', () => {
  it('a second question, a mark, a rewind and dispose are refused while an answer runs', async () => {
    const chat = model.session();
    const point = chat.mark();
    const waiting = chat.ask('What is at i7?');
    const iterator = chat.ask('What is at b4?', { images: [scene(0)] })[Symbol.asyncIterator]();
    const first = await iterator.next();
    const calls = [
      () => chat.ask(QUESTION).text(),
      () => waiting.text(),
      () => chat.mark(),
      () => chat.rewind(point),
      () => chat.dispose(),
    ];
    for (const call of calls) expect((await errorOf(call)).code).toBe('ERR_BUSY');
    let text = String(first.value);
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) text += next.value;
    expect(text).toBe('red F');
    expect(await waiting.text()).toBe('red B');
    chat.dispose();
  });

  it('sessions of one model may answer in turn', async () => {
    const sessions = [model.session(), model.session({ method: sparseVila() })];
    const texts = await Promise.all(sessions.map((chat) => chat.ask('What is at b4?', { images: [scene(0)] }).text()));
    expect(texts).toEqual(['red F', 'red F']);
    for (const chat of sessions) chat.dispose();
  });

  it('a disposed session refuses questions', async () => {
    const chat = model.session();
    const early = chat.ask('What is at b4?');
    chat.dispose();
    for (const call of [() => chat.ask('What is at b4?'), () => early.text()]) {
      const error = await errorOf(call);
      expect([error.code, error.message]).toEqual(['ERR_DISPOSED', expect.stringMatching(/new one with/)]);
    }
  });
});

describe('methods of others', () => {
  const failing = new Error('a method that fails');
  it.each<[string, SparsityMethod]>([
    [
      'prune',
      {
        name: 'p',
        prune: {
          select: () => {
            throw failing;
          },
        },
      },
    ],
    [
      'retrieve',
      {
        name: 'r',
        retrieve: {
          select: () => {
            throw failing;
          },
        },
      },
    ],
  ])('an error in %s becomes the cause of a coded error, and the session stays usable', async (_, method) => {
    using chat = createSession(model, { method });
    const error = await withoutLeak(() => errorOf(() => chat.ask(QUESTION, { images: [scene(0)] }).text()));
    expect([error.code, error.cause]).toEqual(['ERR_METHOD', failing]);
    expect(chat.length).toBe(0);
  });

  it.each<[string, SparsityMethod]>([
    ['too few lists', { name: 'm', prune: { select: () => [] } }],
    ['a token that is not there', { name: 'm', prune: { select: (all) => all.map(() => Int32Array.of(0, 100)) } }],
    ['a negative token', { name: 'm', prune: { select: (all) => all.map(() => Int32Array.of(-1, 3)) } }],
    ['tokens out of order', { name: 'm', prune: { select: (all) => all.map(() => Int32Array.of(3, 2)) } }],
    ['a token twice', { name: 'm', prune: { select: (all) => all.map(() => Int32Array.of(3, 3)) } }],
    ['a row that is not there', { name: 'm', retrieve: { select: () => Int32Array.of(100) } }],
    ['rows out of order', { name: 'm', retrieve: { select: () => Int32Array.of(7, 3) } }],
  ])('a selection with %s is refused', async (_, method) => {
    using chat = createSession(model, { method });
    const error = await withoutLeak(() => errorOf(() => chat.ask(QUESTION, { images: [scene(0)] }).text()));
    expect([error.code, error.message]).toEqual(['ERR_SELECTION', expect.stringMatching(/method "m"/)]);
    expect(chat.length).toBe(0);
  });

  it('empty selections are valid in prune and retrieve', async () => {
    const none: SparsityMethod = {
      name: 'none',
      prune: { select: (all) => all.map(() => new Int32Array()) },
      retrieve: { select: () => new Int32Array() },
    };
    const watched = watch(model);
    using chat = createSession(watched.model, { method: none });
    const answer = chat.ask(QUESTION, { images: [scene(0), scene(1)] });
    await answer.text();
    expect(answer.stats?.tokens).toMatchObject({ visualSeen: 200, visualKept: 0, visualRetrieved: 0 });
    const blind: SparsityMethod = { name: 'blind', retrieve: { select: () => new Int32Array() } };
    using other = createSession(watched.model, { method: blind });
    watched.clear();
    await other.ask(QUESTION, { images: [scene(0)] }).text();
    expect(watched.calls.at(-1)?.views?.[0]).toEqual({ rows: [0, 1, 2], tail: 103 });
  });
});

it.each<[string, () => unknown]>([
  [
    'throws when it is read',
    () =>
      new Proxy(
        {},
        {
          get: () => {
            throw new TypeError('no');
          },
        },
      ),
  ],
  ['is a promise', async () => imageFixture('rgb.png')],
])('a picture or frame that %s is refused', async (_, make) => {
  const picture = await refused(QUESTION, { images: [make()] });
  const frame = await refused(['A film:', { kind: 'video', video: { frames: [make()] } }], {});
  expect([picture.code, frame.code]).toEqual(['ERR_IMAGE_INVALID', 'ERR_IMAGE_INVALID']);
});
