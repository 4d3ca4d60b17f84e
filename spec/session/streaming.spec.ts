// The stream of an answer: its pieces, its ends, leaving it early, and sampling.

import { type AskOptions, load, type Model } from '../../src';
import type { VisionLanguageModel } from '../../src/models/model';
import { float32 } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import { createSession, type Session } from '../../src/session/session';
import { conversations, scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { compareBits } from '../support/nmse';
import { scripted } from '../support/scripted';
import { readRows, watch } from '../support/watch';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

async function pieces(answer: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = [];
  for await (const piece of answer) all.push(piece);
  return all;
}

/** One turn in a session of its own. */
async function once(question: string, options: AskOptions = {}, of: VisionLanguageModel = model) {
  using chat = createSession(of);
  const answer = chat.ask(question, options);
  const got = await pieces(answer);
  return { text: got.join(''), pieces: got, stats: answer.stats };
}

const LIST = 'List the red objects.';
const image = { images: [scene(1)] };

describe('pieces', () => {
  it('concatenate to the result of text(), and none is empty', async () => {
    const { text, pieces: got, stats } = await once(LIST, image);
    expect(text).toBe('F, W');
    expect(got.length).toBeGreaterThan(1);
    expect(got).not.toContain('');
    expect(stats).toMatchObject({ finish: 'stop', tokens: { generated: expect.any(Number) } });
    using chat = model.session();
    expect(await chat.ask(LIST, image).text()).toBe(text);
  });

  it.each([
    'naïve café — 1½ €',
    '👍🏽 thumbs 👩‍👩‍👧‍👦 family 🇩🇪',
    '你好，世界。 日本語',
    'e\u0301 Zalgo z\u0335\u0321',
  ])('end at character boundaries: %j', async (text) => {
    const said = text.normalize('NFC');
    const got = await once('Say it.', {}, scripted(model, text));
    expect(got.text).toBe(said);
    // Every piece is whole characters: code points of the text, in order, and no replacement character.
    const points = got.pieces.flatMap((piece) => [...piece]);
    expect(points).toEqual([...said]);
    expect(got.stats?.tokens.generated).toBe(model.tokenizer.encode(text).length);
    expect(got.stats?.tokens.generated).toBeGreaterThan(got.pieces.length);
  });

  it('an unfinished character at the end gives one replacement character', async () => {
    const tokens = model.tokenizer.encode('ab👍');
    const cut = await once('Say it.', { maxTokens: tokens.length - 1 }, scripted(model, 'ab👍'));
    expect(cut.text).toBe('ab\ufffd');
    expect(cut.stats?.finish).toBe('length');
  });

  it('nothing runs before the answer is read, and stats are set at its end', async () => {
    using chat = model.session();
    const answer = chat.ask(LIST, image);
    expect([chat.length, answer.stats]).toEqual([0, undefined]);
    const iterator = answer[Symbol.asyncIterator]();
    await iterator.next();
    expect(chat.length).toBeGreaterThan(100);
    expect(answer.stats).toBeUndefined();
    while ((await iterator.next()).done !== true);
    expect(answer.stats?.finish).toBe('stop');
  });
});

describe('ends', () => {
  it.each([1, 2])('after maxTokens %i', async (maxTokens) => {
    const whole = await once(LIST, image);
    const cut = await once(LIST, { ...image, maxTokens });
    expect(cut.stats).toMatchObject({ finish: 'length', tokens: { generated: maxTokens } });
    expect(whole.text.startsWith(cut.text)).toBe(true);
    expect(cut.text.length).toBeLessThan(whole.text.length);
  });

  it('maxTokens can end the answer before the stop id', async () => {
    const { stats } = await once('Say it.', { maxTokens: 2 }, scripted(model, '12'));
    expect(stats).toMatchObject({ finish: 'length', tokens: { generated: 2 } });
  });

  it.each([
    [['two'], 'one ', 'stopString'],
    [['three', 'two t'], 'one ', 'stopString'],
    [['one two three four'], '', 'stopString'],
    [['four five'], 'one two three four', 'stop'],
    [[], 'one two three four', 'stop'],
  ])('before a stop string: %j', async (stop, text, finish) => {
    const got = await once('Count.', { stop }, scripted(model, 'one two three four'));
    expect([got.text, got.stats?.finish]).toEqual([text, finish]);
  });

  it('when the context is full', async () => {
    using chat = createSession(scripted(model, 'one two three four five six seven'), { contextLength: 40 });
    const answer = chat.ask('Count, please.');
    const text = await answer.text();
    expect(answer.stats?.finish).toBe('length');
    expect(chat.length).toBe(40);
    expect('one two three four five six seven'.startsWith(text)).toBe(true);
    expect(text).not.toBe('');
  });

  it('an empty answer', async () => {
    const { text, pieces: got, stats } = await once('Say nothing.', {}, scripted(model, ''));
    expect([text, got, stats?.finish, stats?.tokens.generated]).toEqual(['', [], 'stop', 0]);
  });
});

describe('the next turn', () => {
  const [first = '', second = ''] = (conversations()[1]?.turns ?? []).map(({ question }) => question);

  /** Ids that went through the decoder, and the cache and logits that their hidden rows give in one call. */
  async function followUp(leave: (chat: Session) => Promise<string>) {
    const watched = watch(model, { hidden: true });
    using chat = createSession(watched.model, { kv: 'f32' });
    const said = await leave(chat);
    await chat.ask(second, { maxTokens: 1 }).text();
    const { decoder } = model;
    const width = decoder.config.hiddenSize;
    const end = chat.length;
    const rows = start().tf.tidy(() =>
      start().tf.concat(
        watched.calls.map(({ hidden }) => float32(hidden[0] ?? [], [(hidden[0]?.length ?? 0) / width, width])),
      ),
    );
    const cache = decoder.cache('f32', end);
    const positions = watched.calls.flatMap((call) => call.positions);
    const y = await decoder.forward(rows, [{ cache, positions }], { pace: async () => undefined });
    const whole = [...readRows(cache, decoder.config.headDim, 0, end), decoder.logits(y).slice()];
    for (const tensor of [rows, y, cache]) tensor.dispose();
    const ids = watched.embedded.flat();
    return {
      said,
      positions,
      ids,
      compared: compareBits([...watched.cacheRows(end), ...watched.logits.slice(-1)], whole),
    };
  }

  it.each([
    [
      'is left after a piece',
      async (chat) => {
        for await (const piece of chat.ask(first)) return piece;
        return '';
      },
    ],
    ['is cut by maxTokens', (chat) => chat.ask(first, { maxTokens: 2 }).text()],
    ['ends by itself', (chat) => chat.ask(first).text()],
  ] as const satisfies readonly (readonly [string, (chat: Session) => Promise<string>])[])(
    'after an answer that %s equals one prefill of the same ids',
    async (_, leave) => {
      const { said, ids, positions, compared } = await followUp(leave);
      expect(said).not.toBe('');
      const user = (text: string): string => `<|im_start|>user\n${text}<|im_end|>\n<|im_start|>assistant\n`;
      expect(model.tokenizer.decode(ids, { skipSpecial: false })).toBe(
        `${user(first)}${said}<|im_end|>\n${user(second)}`,
      );
      expect(positions).toEqual(Array.from(positions, (_, i) => i));
      expect(compared).toBe('identical');
    },
  );

  it('after leaving early no memory is held', async () => {
    using chat = model.session();
    await chat.ask(first, image).text();
    await withoutLeak(async () => {
      for await (const _ of chat.ask(LIST, { images: [scene(2)] })) break;
      for await (const _ of chat.ask(LIST)) break;
    });
    expect(await chat.ask(second).text()).not.toBe('');
  });
});

describe('choosing tokens', () => {
  const hot = { ...image, temperature: 4, maxTokens: 12 };

  it('greedy is temperature 0, and top-k 1 at any temperature', async () => {
    const { text } = await once(LIST, image);
    expect((await once(LIST, { ...image, temperature: 0 })).text).toBe(text);
    expect((await once(LIST, { ...hot, topK: 1 })).text).toBe(text);
    expect((await once(LIST, { ...hot, topP: 1e-9 })).text).toBe(text);
  });

  it('equal seeds give equal answers, other seeds other answers', async () => {
    const said = async (seed: number): Promise<string> => (await once(LIST, { ...hot, seed })).text;
    const texts = [await said(1), await said(2), await said(3), await said(4)];
    expect(await said(1)).toBe(texts[0]);
    expect(await said(4)).toBe(texts[3]);
    expect(new Set(texts).size).toBeGreaterThan(1);
  });

  it('a repetition penalty changes the answer', async () => {
    const { text } = await once(LIST, { ...image, repetitionPenalty: 1 });
    const penalized = await once(LIST, { ...image, repetitionPenalty: 50, maxTokens: 12 });
    expect(text).toBe('F, W');
    expect(penalized.text).not.toBe(text);
  });
});
