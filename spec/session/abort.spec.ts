// Abort: at any time, the reason is thrown, the conversation is as before, and no memory is left. Long work yields
// to the event loop, so that an abort can come at all.

import { load, type Model, sparseVila } from '../../src';
import type { VisionLanguageModel } from '../../src/models/model';
import { pointOf } from '../../src/session/conversation';
import { createSession, type Session } from '../../src/session/session';
import { scene, TINY } from '../support/assets';
import { countTensors, withoutLeak } from '../support/leaks';
import { compareBits } from '../support/nmse';
import { interrupted } from '../support/scripted';
import { watch } from '../support/watch';

const LONG = 'Where is the red A? '.repeat(150);
const reason = new Error('no longer wanted');

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

/** A session that has had a turn, on a model that `wrap` may change after that turn. */
async function started(wrap: (inner: VisionLanguageModel) => VisionLanguageModel = (inner) => inner) {
  const watched = watch(model);
  let current: VisionLanguageModel = watched.model;
  const outer: VisionLanguageModel = {
    ...watched.model,
    prepare: (...given) => current.prepare(...given),
    encode: (...given) => current.encode(...given),
    decoder: { ...watched.model.decoder, forward: (...given) => current.decoder.forward(...given) },
  };
  const chat = createSession(outer, { method: sparseVila() });
  await chat.ask('What is at b4?', { images: [scene(0)] }).text();
  current = wrap(watched.model);
  return { chat, watched };
}

const follow = (chat: Session): Promise<string> => chat.ask('Where is the yellow star?', { images: [scene(1)] }).text();

/** The answers and the state of a session that was never aborted. */
async function undisturbed() {
  const { chat, watched } = await started();
  const text = await follow(chat);
  const rows = watched.cacheRows(chat.length);
  chat.dispose();
  return { text, rows };
}

/** The state of a conversation, from its mark. */
function standing(chat: Session) {
  const { length, nextPosition, visual, ids, items, script } = pointOf(chat.mark());
  return { length, nextPosition, visual, ids, items, script };
}

type Moment = readonly [
  when: string,
  images: number,
  question: string,
  at: { stage: 'tower' | 'decoder'; call: number; step: number },
];
const MOMENTS: readonly Moment[] = [
  ['in the first block of the tower', 1, 'Where is the A?', { stage: 'tower', call: 1, step: 1 }],
  ['in the tower of the second image', 2, 'Where is the A?', { stage: 'tower', call: 2, step: 4 }],
  ['while the image is prefilled', 1, 'Where is the A?', { stage: 'decoder', call: 1, step: 2 }],
  [
    'while the question is prefilled, the image being in the cache',
    1,
    'Where is the A?',
    { stage: 'decoder', call: 2, step: 1 },
  ],
  ['in the second chunk of a long question', 1, LONG, { stage: 'decoder', call: 3, step: 3 }],
  ['at the end of the prefill', 0, 'Where is the A?', { stage: 'decoder', call: 2, step: 4 }],
  ['in the first step of decoding', 1, 'List the red objects.', { stage: 'decoder', call: 3, step: 1 }],
  ['in a later step of decoding', 1, 'List the red objects.', { stage: 'decoder', call: 4, step: 3 }],
];

describe('an abort', () => {
  it.each(MOMENTS)('%s', async (_, images, question, at) => {
    const controller = new AbortController();
    const { chat, watched } = await started((inner) => interrupted(inner, at, () => controller.abort(reason)));
    const { length } = chat;
    const rows = watched.cacheRows(length);
    const point = standing(chat);
    await withoutLeak(async () => {
      const answer = chat.ask(question, { images: [1, 2].slice(0, images).map(scene), signal: controller.signal });
      await expect(answer.text()).rejects.toBe(reason);
      expect(answer.stats).toBeUndefined();
    });
    expect(controller.signal.aborted).toBe(true);
    expect(chat.length).toBe(length);
    expect(standing(chat)).toEqual(point);
    expect(compareBits(watched.cacheRows(length), rows)).toBe('identical');
    const expected = await undisturbed();
    expect(await follow(chat)).toBe(expected.text);
    expect(compareBits(watched.cacheRows(chat.length), expected.rows)).toBe('identical');
    chat.dispose();
  });

  it('before the start', async () => {
    const { chat, watched } = await started();
    watched.clear();
    const answer = chat.ask('Where is the A?', { images: [scene(1)], signal: AbortSignal.abort(reason) });
    await withoutLeak(() => expect(answer.text()).rejects.toBe(reason));
    expect(watched.calls).toEqual([]);
    expect(await follow(chat)).toBe((await undisturbed()).text);
    chat.dispose();
  });

  it('while an image is read', async () => {
    const controller = new AbortController();
    const { chat, watched } = await started((inner) => ({
      ...inner,
      prepare: (media, signal) => {
        const pixels = inner.prepare(media, signal);
        controller.abort(reason);
        return pixels;
      },
    }));
    watched.clear();
    const answer = chat.ask('Where is the A?', { images: [scene(1)], signal: controller.signal });
    await withoutLeak(() => expect(answer.text()).rejects.toBe(reason));
    expect(watched.calls).toEqual([]);
    chat.dispose();
  });

  it('between two pieces, by the consumer', async () => {
    const controller = new AbortController();
    const { chat } = await started();
    const { length } = chat;
    const got: string[] = [];
    const read = async (): Promise<void> => {
      for await (const piece of chat.ask('List the red objects.', { signal: controller.signal })) {
        got.push(piece);
        controller.abort(reason);
      }
    };
    await withoutLeak(() => expect(read()).rejects.toBe(reason));
    expect([got.length, chat.length]).toEqual([1, length]);
    chat.dispose();
  });

  it('that comes from a timer ends a long prefill', async () => {
    const { chat } = await started();
    const { length } = chat;
    const signal = AbortSignal.timeout(1);
    await withoutLeak(() =>
      expect(chat.ask(LONG.repeat(6), { signal }).text()).rejects.toHaveProperty('name', 'TimeoutError'),
    );
    expect(chat.length).toBe(length);
    chat.dispose();
  });

  it('after the answer changes nothing', async () => {
    const controller = new AbortController();
    const { chat } = await started();
    const text = await chat.ask('Where is the A?', { signal: controller.signal }).text();
    controller.abort(reason);
    expect(text).not.toBe('');
    expect(await follow(chat)).not.toBe('');
    chat.dispose();
  });
});

describe('the event loop', () => {
  it('runs while a long question is prefilled and while many images are encoded', async () => {
    using chat = model.session();
    let turns = 0;
    let running = true;
    const tick = (): void => {
      turns++;
      if (running) setImmediate(tick);
    };
    setImmediate(tick);
    await chat.ask(LONG.repeat(4), { maxTokens: 1 }).text();
    const duringText = turns;
    await chat.ask('Where is the A?', { images: [0, 1, 2, 3].map(scene), maxTokens: 1 }).text();
    running = false;
    expect(duringText).toBeGreaterThan(10);
    expect(turns - duringText).toBeGreaterThan(4);
  });

  it('a session frees all its memory', async () => {
    const before = countTensors();
    const chat = model.session();
    await chat.ask('Where is the A?', { images: [scene(0)] }).text();
    expect(countTensors().tfjs).toBe(before.tfjs + 4);
    chat.dispose();
    expect(countTensors()).toEqual(before);
  });
});
