// Lifetimes of models, sessions, answers and marks: everything that is used after its end, or while it is in use elsewhere, is
// refused with a code; a read answer is kept.

import { getEventListeners } from 'node:events';
import { load, type Mark, type Model, type SparsityMethod, sparseVila } from '../../src';
import { start } from '../../src/runtime/start';
import { createSession } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { watch } from '../support/watch';

const QUESTION = 'What is at b4?';
const IMAGES = { images: [scene(0)] };
const codeOf = async (work: () => unknown): Promise<string> => (await errorOf(work)).code;

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
  using warm = model.session({ method: sparseVila() });
  await warm.ask(QUESTION, IMAGES);
});
afterAll(() => {
  model.dispose();
});

describe('a model', () => {
  it('cannot be disposed of while an answer runs, nor used afterwards', async () => {
    const own = await load(TINY);
    const chat = own.session();
    const late = chat.ask(QUESTION);
    const point = chat.mark();
    const answer = chat.ask(QUESTION, IMAGES);
    const text = answer.text();
    expect(await codeOf(() => own.dispose())).toBe('ERR_BUSY');
    expect(await text).toBe('red F');
    own.dispose();
    own.dispose();
    for (const call of [
      () => chat.ask(QUESTION),
      () => late.text(),
      () => chat.mark(),
      () => chat.rewind(point),
      () => own.session(),
    ])
      expect(await codeOf(call)).toBe('ERR_DISPOSED');
    expect(await answer.text()).toBe('red F');
    chat.dispose();
    chat.dispose();
  });

  it('cannot be disposed of between two pieces, but after the loop is left', async () => {
    const own = await load(TINY);
    using chat = own.session();
    for await (const _ of chat.ask('List the red objects.', IMAGES)) {
      expect(await codeOf(() => own[Symbol.dispose]())).toBe('ERR_BUSY');
      break;
    }
    own.dispose();
  });
});

describe('an answer', () => {
  it('asks once, for any number of readers', async () => {
    const watched = watch(model);
    using chat = createSession(watched.model);
    const answer = chat.ask('List the red objects.', IMAGES);
    const pieces: string[] = [];
    const [a, b, c] = await Promise.all([
      answer.text(),
      answer,
      (async () => {
        for await (const piece of answer) pieces.push(piece);
      })(),
    ]);
    const { length, calls } = { length: chat.length, calls: watched.calls.length };
    const { stats } = answer;
    expect([a, b, c]).toEqual([pieces.join(''), pieces.join(''), undefined]);
    expect(pieces.length).toBeGreaterThan(1);
    const again: string[] = [];
    for await (const piece of answer) again.push(piece);
    expect(again).toEqual(pieces);
    expect(await answer).toBe(a);
    expect([chat.length, watched.calls.length]).toEqual([length, calls]);
    expect(answer.stats).toBe(stats);
    expect(stats?.tokens.generated).toBeGreaterThan(1);
  });

  it('that is never read runs nothing', async () => {
    using chat = model.session();
    await withoutLeak(() => void chat.ask(QUESTION, IMAGES));
    expect(chat.length).toBe(0);
    expect(await chat.ask(QUESTION, IMAGES)).toBe('red F');
  });

  it('that is left early keeps its text so far', async () => {
    using chat = model.session();
    const answer = chat.ask('List the red objects.', IMAGES);
    let first = '';
    for await (const piece of answer) {
      first = piece;
      break;
    }
    const { length } = chat;
    expect([await answer, await answer.text(), answer.stats]).toEqual([first, first, undefined]);
    expect(chat.length).toBe(length);
  });

  it('that is left early by one reader continues for the other', async () => {
    using chat = model.session();
    const whole = await (async () => {
      using other = model.session();
      return await other.ask('List the red objects.', IMAGES).text();
    })();
    const answer = chat.ask('List the red objects.', IMAGES);
    const text = answer.text();
    for await (const _ of answer) break;
    expect(await text).toBe(whole);
  });

  it('throws the same error at every read', async () => {
    using chat = model.session();
    const answer = chat.ask(QUESTION, { images: ['nowhere.png'] });
    const first = await errorOf(() => answer.text());
    expect([first.code, await errorOf(() => answer)]).toEqual(['ERR_IMAGE_NOT_FOUND', first]);
    const reason = { any: 'value' };
    const aborted = chat.ask(QUESTION, { signal: AbortSignal.abort(reason) });
    await expect(aborted.text()).rejects.toBe(reason);
    await expect(Promise.resolve(aborted)).rejects.toBe(reason);
  });
});

it('forty answers under one signal: one listener, of which Node does not warn, and all end when it aborts', async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const sessions = Array.from({ length: 40 }, () => model.session());
  const ask = (i: number) => (sessions[i] as (typeof sessions)[number]).ask(QUESTION, { ...IMAGES, signal }).text();
  expect(new Set(await Promise.all(sessions.slice(0, 15).map((_, i) => ask(i))))).toEqual(new Set(['red F']));
  const reason = new Error('shut down');
  const answers = Promise.allSettled(sessions.map((_, i) => ask(i)));
  const listeners = new Set<number>();
  while (listeners.size < 2) {
    listeners.add(getEventListeners(signal, 'abort').length);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(listeners).toEqual(new Set([0, 1]));
  controller.abort(reason);
  for (const answer of await answers) expect(answer).toEqual({ status: 'rejected', reason });
  for (const session of sessions) session.dispose();
  expect(getEventListeners(signal, 'abort')).toHaveLength(0);
});

describe('a long question', () => {
  const pictures = jest.fn();
  const watched = (): Model => ({ ...model, prepare: pictures }) as unknown as Model;

  it.each(['red '.repeat(3e4), '😀'.repeat(1e5), 'a'.repeat(4e5)])(
    '%#: refused before any picture is decoded',
    async (text) => {
      using chat = createSession(watched(), { contextLength: 4000 });
      const error = await withoutLeak(() => errorOf(() => chat.ask(text, IMAGES).text()));
      expect([error.code, error.message]).toEqual([
        'ERR_CONTEXT_OVERFLOW',
        expect.stringMatching(/at least.*has 4000/),
      ]);
      expect(pictures).not.toHaveBeenCalled();
    },
  );

  it('can be aborted while its tokens are counted', async () => {
    using chat = createSession(watched());
    const controller = new AbortController();
    const text = chat.ask('What is at b4? '.repeat(1e6), { ...IMAGES, signal: controller.signal }).text();
    setImmediate(() => controller.abort('enough'));
    await expect(text).rejects.toBe('enough');
  });
});

describe('a mark', () => {
  it('that was made up, copied, or made by another session is refused, and the conversation stays', async () => {
    using chat = model.session();
    using other = model.session();
    await chat.ask(QUESTION, IMAGES);
    const point = chat.mark();
    const { length } = chat;
    const forged = [
      { ...point },
      { length: 0 },
      Object.create(point),
      JSON.parse(JSON.stringify(point)),
      new Proxy(point, {}),
      undefined,
      null,
      7,
      'mark',
      Symbol('mark'),
      other.mark(),
    ];
    for (const mark of forged) expect(await codeOf(() => chat.rewind(mark as Mark))).toBe('ERR_MARK');
    expect(() => Object.assign(point, { length: 3 })).toThrow(TypeError);
    expect(chat.length).toBe(length);
    chat.rewind(point);
    expect(await chat.ask('What is at i7?')).toBe('red B');
  });
});

describe('methods of others', () => {
  const all = (tokens: number): Int32Array => Int32Array.from({ length: tokens }, (_, i) => i);
  it.each<[string, string, object]>([
    ['misspelled part', 'ERR_METHOD', { retreive: () => all(3) }],
    ['part of a wrong type', 'ERR_METHOD', { prune: 'all' }],
    [
      'part that throws when read',
      'ERR_METHOD',
      {
        get prune() {
          throw new Error('read');
        },
      },
    ],
    ['window below one', 'ERR_METHOD', { retrieve: { window: 0, select: () => all(1) } }],
    ['tap of one layer', 'ERR_METHOD', { prune: { taps: { salience: -1 }, select: () => [] } }],
    ['misspelled member of a group', 'ERR_METHOD', { retrieve: { select: () => all(1), permanant: true } }],
    ['group without its function', 'ERR_METHOD', { prune: { taps: { salience: [-1] } } }],
    ['drop without layers', 'ERR_METHOD', { drop: { select: () => all(1) } }],
    ['empty name', 'ERR_METHOD', { name: '' }],
    ['layers out of order', 'ERR_OPTION_INVALID', { drop: { layers: [3, 2], select: () => all(1) } }],
  ])('a session refuses a method with a %s', async (_, code, parts) => {
    const method = Object.defineProperties({ name: 'm' }, Object.getOwnPropertyDescriptors(parts)) as SparsityMethod;
    expect(await codeOf(() => model.session({ method }))).toBe(code);
  });

  it.each([
    ['tower', [-1], 'prune.taps'],
    ['merges', 'projected', 'prune.rows'],
    ['dropFrom', [1], 'drop.layers'],
    ['scoresOf', 'next', 'drop.scores'],
    ['raters', () => all(1), 'drop.raters'],
    ['window', 3, 'retrieve.window'],
    ['evicts', true, 'retrieve.permanent'],
    ['prune', () => [all(1)], 'prune.select'],
    ['drop', () => all(1), 'drop.select'],
    ['retrieve', () => all(1), 'retrieve.select'],
  ])('the former member %s is refused, and the error names the new member', async (member, value, place) => {
    const method = { name: 'm', [member]: value } as unknown as SparsityMethod;
    const error = await errorOf(() => model.session({ method }));
    expect([error.code, error.message]).toEqual(['ERR_METHOD', expect.stringContaining(place)]);
  });

  it.each<[string, string, Partial<SparsityMethod>]>([
    ['a promise', 'ERR_SELECTION', { prune: { select: (async () => []) as never } }],
    ['an undeclared question', 'ERR_METHOD', { prune: { select: ([grid]) => [all(grid?.question().width ?? 0)] } }],
    ['too many lists', 'ERR_SELECTION', { prune: { select: () => [all(3), all(3)] } }],
    ['a list of plain numbers', 'ERR_SELECTION', { retrieve: { select: () => [0, 1] as never } }],
    ['nothing', 'ERR_SELECTION', { retrieve: { select: () => undefined as never } }],
    [
      'rows with NaN',
      'ERR_SELECTION',
      { prune: { select: () => [{ kept: all(1), rows: new Float32Array(64).fill(Number.NaN) }] } },
    ],
    ['a proxy', 'ERR_SELECTION', { retrieve: { select: () => new Proxy(all(1), {}) } }],
    [
      'a thrown string',
      'ERR_METHOD',
      {
        retrieve: {
          select: () => {
            throw 'text';
          },
        },
      },
    ],
  ])('%s is distinguished from broken weights', async (_, code, parts) => {
    using chat = model.session({ method: { name: 'm', ...parts } });
    const error = await withoutLeak(() => errorOf(() => chat.ask(QUESTION, IMAGES).text()));
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(/"m"/)]);
  });

  it('cannot change what sessions share: salience, keys, places and what they returned', async () => {
    using own = await load(TINY, { imageCache: 1e8 });
    const returned: Int32Array[] = [];
    const vandal: SparsityMethod = {
      name: 'vandal',
      prune: {
        taps: { salience: [-1], keys: [-1] },
        select: (grids) =>
          grids.map((grid) => {
            grid.salience().fill(0);
            grid.keys().data.fill(0);
            const kept = all(grid.tokens);
            returned.push(kept);
            return kept;
          }),
      },
      retrieve: {
        select: (relevance) => {
          for (const kept of returned) kept.fill(99);
          return all(relevance.length);
        },
      },
    };
    using chat = own.session({ method: vandal });
    const answer = chat.ask(QUESTION, IMAGES);
    expect(await answer).toBe('red F');
    expect(answer.stats?.media[0]?.kept).toEqual(all(100));
    expect(answer.stats?.media[0]?.salience?.some((value) => value > 0)).toBe(true);
  });
});

it('logits that overflow because of an option are not reported as broken weights', async () => {
  using chat = model.session();
  const error = await errorOf(() => chat.ask(QUESTION, { repetitionPenalty: 1e-40 }).text());
  expect([error.code, error.message]).toEqual(['ERR_OPTION_INVALID', expect.stringMatching(/repetitionPenalty/)]);
  expect(await codeOf(() => chat.ask(QUESTION, { temperature: 1e39 }))).toBe('ERR_OPTION_INVALID');
  const answers = [5, 2 ** 32 + 5].map((topK) => chat.ask(QUESTION, { temperature: 5, topK, seed: 1, maxTokens: 4 }));
  const point = chat.mark();
  const few = await answers[0];
  chat.rewind(point);
  expect(await answers[1]).not.toBe(few);
});

it('scores that are all equal are an error', async () => {
  const { tf } = start();
  const decoder = { ...model.decoder, scores: () => tf.zeros([1, model.decoder.config.vocabSize]) };
  using chat = createSession({ ...model, decoder });
  const error = await withoutLeak(() => errorOf(() => chat.ask(QUESTION, IMAGES).text()));
  expect([error.code, error.message]).toEqual(['ERR_LOGITS_INVALID', expect.stringMatching(/received 0 for all/)]);
});

describe.each(['embed', 'forward', 'scores', 'project'] as const)('an op that fails in %s', (at) => {
  it.each([0, 1, 2, 3])('at its call %i: a coded error, and no tensor is left', async (call) => {
    let calls = 0;
    const failing = <F extends (...given: never[]) => unknown>(inner: F): F =>
      ((...given: Parameters<F>) => {
        if (calls++ === call) throw new Error('op');
        return inner(...given);
      }) as F;
    const decoder = at === 'project' ? model.decoder : { ...model.decoder, [at]: failing(model.decoder[at]) };
    const broken = { ...model, decoder, ...(at === 'project' && { project: failing(model.project) }) };
    using chat = createSession(broken, { method: sparseVila() });
    const images = [scene(0), scene(1), scene(2), scene(3)];
    const error = await withoutLeak(() => errorOf(() => chat.ask('List the red objects.', { images }).text()));
    expect([error.code, (error.cause as Error).message]).toEqual(['ERR_INTERNAL', 'op']);
    expect(chat.length).toBe(0);
  });
});
