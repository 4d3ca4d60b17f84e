// What a turn puts into the cache and attends: positions, counts and views with one image, with several, in one turn and in many; and
// going back.

import { budget, load, type Mark, type Model, type SessionOptions, sparseVila, type TurnStats } from '../../src';
import type { Position } from '../../src/ops/rope';
import { createSession } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { compareBits } from '../support/nmse';
import { type Watched, watch } from '../support/watch';

/** Tokens of one picture, and what the image preset keeps of it. */
const SEEN = 100;
const KEPT = 40;
/** Ids of "<|im_start|>user\n" before the image and of "\n" after it. */
const BEFORE = 3;
const END = 1;

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i);

function open(options: SessionOptions = {}) {
  const watched = watch(model);
  const chat = createSession(watched.model, options);
  const ask = async (question: string, images: number[] = []): Promise<{ text: string; stats: TurnStats }> => {
    watched.clear();
    const answer = chat.ask(question, { images: images.map(scene) });
    const text = await answer.text();
    if (answer.stats === undefined) throw new Error('a complete answer without stats');
    return { text, stats: answer.stats };
  };
  return { chat, watched, ask };
}

/** The opening's and the question's positions. */
const prompt = ({ calls }: Watched): (readonly Position[])[] => calls.slice(0, 2).map(({ positions }) => positions);

describe('one image', () => {
  it('keeps original positions; following text is placed as if nothing were pruned', async () => {
    const { chat, watched, ask } = open({ method: sparseVila() });
    const { stats } = await ask('Where is the A?', [0]);
    const kept = Array.from(stats.media[0]?.kept ?? []);
    const [opening = [], question = []] = prompt(watched);
    expect(kept).toHaveLength(KEPT);
    expect(opening).toEqual([...range(0, BEFORE), ...kept.map((i) => BEFORE + i), BEFORE + SEEN]);
    expect(question).toEqual(range(BEFORE + SEEN + END, question.length));
    expect(stats.tokens).toMatchObject({ visualSeen: SEEN, visualKept: KEPT, visualRetrieved: budget(KEPT, 0.75) });
    expect(stats.tokens.prompt).toBe(BEFORE + KEPT + END + question.length);
    chat.dispose();
  });

  it('has positions without gaps if they are compact', async () => {
    const { chat, watched, ask } = open({ method: sparseVila({ positions: 'compact' }) });
    const { stats } = await ask('Where is the A?', [0]);
    const [opening = [], question = []] = prompt(watched);
    expect(stats.media[0]?.kept).toHaveLength(KEPT);
    expect([...opening, ...question]).toEqual(range(0, BEFORE + KEPT + END + question.length));
    chat.dispose();
  });

  it("reports the tower's and the method's results in stats", async () => {
    const { chat, ask } = open({ method: sparseVila() });
    const { stats } = await ask('Where is the A?', [0]);
    const [image] = stats.media;
    expect(image).toMatchObject({ layout: { grids: [{ t: 1, h: 10, w: 10 }] }, tokens: SEEN });
    expect(image?.salience).toHaveLength(SEEN);
    const lowestKept = Math.min(...Array.from(image?.kept ?? [], (i) => image?.salience?.[i] ?? 0));
    const dropped = range(0, SEEN).filter((i) => !image?.kept.includes(i));
    expect(Math.max(...dropped.map((i) => image?.salience?.[i] ?? 1))).toBeLessThanOrEqual(lowestKept);
    expect(Object.values(stats.ms).every((ms) => ms >= 0)).toBe(true);
    chat.dispose();
  });

  it('every step attends all text and only the retrieved rows of its layer', async () => {
    const { chat, watched, ask } = open({ method: sparseVila() });
    const { stats } = await ask('List the red objects.', [1]);
    const steps = watched.calls.slice(2);
    expect(steps.length).toBe(stats.tokens.generated);
    for (const { views } of steps) {
      expect(views).toHaveLength(4);
      for (const [layer, view] of (views ?? []).entries()) {
        const visual = Array.from(stats.retrieved?.[layer] ?? [], (i) => BEFORE + i);
        expect(visual).toHaveLength(10);
        expect(view).toEqual({ rows: [...range(0, BEFORE), ...visual], tail: BEFORE + KEPT });
      }
    }
    expect(watched.calls.slice(0, 2).map(({ views }) => views)).toEqual([undefined, undefined]);
    chat.dispose();
  });
});

describe('several images', () => {
  it('in one turn: each with its end token, one retrieval budget for all', async () => {
    const { chat, watched, ask } = open({ method: sparseVila() });
    const { stats } = await ask('How many red objects are there?', [0, 1]);
    const [a, b] = stats.media.map(({ kept }) => Array.from(kept));
    const [opening = [], question = []] = prompt(watched);
    const second = BEFORE + SEEN + END;
    expect(opening).toEqual([
      ...range(0, BEFORE),
      ...(a ?? []).map((i) => BEFORE + i),
      BEFORE + SEEN,
      ...(b ?? []).map((i) => second + i),
      second + SEEN,
    ]);
    expect(question[0]).toBe(second + SEEN + END);
    expect([a?.length, b?.length]).toEqual([KEPT, KEPT]);
    expect(stats.tokens).toMatchObject({ visualSeen: 2 * SEEN, visualKept: 2 * KEPT, visualRetrieved: 20 });
    expect(stats.retrieved?.map(({ length }) => length)).toEqual([20, 20, 20, 20]);
    chat.dispose();
  });

  it('in later turns are added to those of earlier turns', async () => {
    const { chat, watched, ask } = open({ method: sparseVila() });
    const first = await ask('Where is the A?', [0]);
    const end = chat.length;
    const second = await ask('What color is it?', [1, 2]);
    expect(first.stats.tokens).toMatchObject({ visualSeen: SEEN, visualKept: KEPT, visualRetrieved: 10 });
    expect(second.stats.tokens).toMatchObject({ visualSeen: 2 * SEEN, visualKept: 3 * KEPT, visualRetrieved: 30 });
    expect(second.stats.media).toHaveLength(2);
    // "<|im_end|>\n<|im_start|>user\n" comes before the new images.
    const decode = (ids: number[] = []): string => model.tokenizer.decode(ids, { skipSpecial: false });
    expect(decode(watched.embedded[0])).toBe('<|im_end|>\n<|im_start|>user\n');
    expect(decode(watched.embedded[3])).toBe('What color is it?<|im_end|>\n<|im_start|>assistant\n');
    expect(watched.calls[0]?.length).toBe(end);
    const rows = watched.calls.at(-1)?.views?.[0]?.rows ?? [];
    const visual = new Set(second.stats.retrieved?.[0]);
    expect(rows.filter((row) => row >= BEFORE && row < BEFORE + KEPT)).toHaveLength(
      [...visual].filter((i) => i < KEPT).length,
    );
    const third = await ask('Where is the A?');
    expect(third.stats.tokens).toMatchObject({ visualSeen: 0, visualKept: 3 * KEPT, visualRetrieved: 30 });
    expect(third.stats.media).toEqual([]);
    chat.dispose();
  });

  it('after a turn of text alone', async () => {
    const { chat, watched, ask } = open({ method: sparseVila() });
    const { stats } = await ask('What is at b4?');
    expect(stats.tokens).toMatchObject({ visualSeen: 0, visualKept: 0, visualRetrieved: 0 });
    expect(stats.retrieved).toBeUndefined();
    const end = chat.length;
    const next = await ask('What is at b4?', [0]);
    expect(next.stats.tokens).toMatchObject({ visualSeen: SEEN, visualKept: KEPT, visualRetrieved: 10 });
    const [opening = []] = prompt(watched);
    const kept = Array.from(next.stats.media[0]?.kept ?? []);
    const at = opening.findIndex((position, i) => i > 0 && position !== Number(opening[i - 1]) + 1);
    expect(opening.slice(0, 5)).toEqual(range(end, 5));
    expect(opening.slice(5, 5 + KEPT)).toEqual(kept.map((i) => end + 5 + i));
    expect(at).toBeGreaterThan(0);
    expect(next.text).toBe('red F');
    chat.dispose();
  });

  it('forgetting text keeps the images of every turn', async () => {
    const { chat, ask } = open({ method: sparseVila(), history: 'forget' });
    await ask('What is at b4?', [0]);
    expect(chat.length).toBe(BEFORE + KEPT + END);
    await ask('What is at i7?', [1]);
    const both = BEFORE + 2 * (KEPT + END);
    expect(chat.length).toBe(both);
    expect((await ask('How many red objects are there?')).stats.tokens).toMatchObject({ visualKept: 2 * KEPT });
    expect(chat.length).toBe(both);
    // The two images then stand in one turn, as if they had been given together.
    const together = open({ method: sparseVila(), history: 'forget' });
    await together.ask('What is at b4?', [0, 1]);
    expect((await ask('Where is the A?')).text).toBe((await together.ask('Where is the A?')).text);
    chat.dispose();
    together.chat.dispose();
  });

  it("the history option of a turn overrides the session's", async () => {
    const { chat } = open();
    await chat.ask('What is at b4?', { images: [scene(0)], history: 'forget' }).text();
    expect(chat.length).toBe(BEFORE + SEEN + END);
    await chat.ask('What is at b4?').text();
    const kept = chat.length;
    expect(kept).toBeGreaterThan(BEFORE + SEEN + END);
    await chat.ask('What is at i7?', { history: 'forget' }).text();
    expect(chat.length).toBe(kept);
    chat.dispose();
  });
});

describe('the system message', () => {
  it('comes before the first turn only', async () => {
    const { chat, watched, ask } = open({ system: 'Be brief.' });
    await ask('What is at b4?', [0]);
    const decode = (ids: number[] = []): string => model.tokenizer.decode(ids, { skipSpecial: false });
    expect(decode(watched.embedded[0])).toBe('<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n');
    await ask('What is at b4?');
    expect(watched.embedded.map(decode).join('')).not.toContain('Be brief');
    chat.dispose();
  });
});

describe('mark and rewind', () => {
  it('asking again after a rewind gives the same answer, counts and cache', async () => {
    const { chat, watched, ask } = open({ method: sparseVila() });
    await ask('What is at b4?', [0]);
    const point = chat.mark();
    const first = await ask('How many cyan objects are there?', [1]);
    const cache = watched.cacheRows(chat.length);
    await ask('Where is the A?');
    chat.rewind(point);
    expect(chat.length).toBe(point.length);
    const again = await ask('How many cyan objects are there?', [1]);
    expect([again.text, again.stats.tokens]).toEqual([first.text, first.stats.tokens]);
    expect(again.stats.retrieved).toEqual(first.stats.retrieved);
    expect(compareBits(watched.cacheRows(chat.length), cache)).toBe('identical');
    chat.dispose();
  });

  it('rewinding to the start removes everything', async () => {
    const { chat, ask } = open();
    const start = chat.mark();
    const first = await ask('What is at b4?', [0]);
    chat.rewind(start);
    expect(chat.length).toBe(0);
    expect((await ask('What is at b4?', [0])).text).toBe(first.text);
    chat.dispose();
  });

  it('a mark after the present state is an error, and nothing changes', async () => {
    const { chat, ask } = open();
    const start = chat.mark();
    await ask('What is at b4?', [0]);
    const end = chat.mark();
    chat.rewind(start);
    const error = await errorOf(() => chat.rewind(end));
    expect([error.code, error.message]).toEqual(['ERR_MARK', expect.stringContaining(`row ${end.length}`)]);
    expect(chat.length).toBe(0);
    chat.dispose();
  });

  it('a mark after the point of a rewind is an error, even if the conversation has grown beyond it again', async () => {
    const { chat, ask } = open();
    const start = chat.mark();
    await ask('What is at b4?');
    const end: Mark = chat.mark();
    chat.rewind(start);
    await ask('What is at b4? What is at b5? What is at b6? List the red objects.');
    expect(chat.length).toBeGreaterThan(end.length);
    expect((await errorOf(() => chat.rewind(end))).code).toBe('ERR_MARK');
    chat.dispose();
  });

  it("another session's mark is an error", async () => {
    const [one, other] = [open(), open()];
    await one.ask('What is at b4?');
    expect((await errorOf(() => one.chat.rewind(other.chat.mark()))).code).toBe('ERR_MARK');
    one.chat.dispose();
    other.chat.dispose();
  });

  it('a disposed session refuses both', async () => {
    const { chat } = open();
    const point = chat.mark();
    chat.dispose();
    chat.dispose();
    for (const call of [() => chat.mark(), () => chat.rewind(point)])
      expect((await errorOf(call)).code).toBe('ERR_DISPOSED');
  });
});
