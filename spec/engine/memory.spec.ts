// What an engine remembers: later requests begin with it, and have the bits that they have without it.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { EngineEvent, EngineRequest, PromptTokens } from '../../src';
import { type Core, openCore } from '../../src/engine/core';
import { loadModel } from '../../src/models/load';
import type { VisionLanguageModel } from '../../src/models/model';
import { floats } from '../../src/ops/run';
import { errorOf } from '../image/fixtures';
import { FIXTURES, scene, TINY } from '../support/assets';
import { countTensors } from '../support/leaks';

const NEVER = new AbortController().signal;
const [FIRST, SECOND] = ['What is at b4?', 'How many shapes are there?'];

let model: VisionLanguageModel;
beforeAll(async () => {
  model = { ...(await loadModel(TINY)), stopIds: [] };
});
afterAll(() => model.dispose());

type Messages = EngineRequest['messages'];
const picture = (i: number) => ({ kind: 'image' as const, image: readFileSync(scene(i)) });
const user = (...content: Extract<Messages[number]['content'], readonly unknown[]>): Messages[number] => ({
  role: 'user',
  content,
});
const assistant = (content: string): Messages[number] => ({ role: 'assistant', content });

interface Told {
  readonly text: string;
  readonly tokens: PromptTokens;
  /** The scores of every token, in base64. */
  readonly scores: readonly string[];
}

const STATES = join(FIXTURES, 'qwen_vl/qwen3.5');

/** A core whose scores and runs of the tower are recorded. */
function watched(memoryBytes: number, of = model) {
  const scores: string[] = [];
  const calls = { tower: 0 };
  const { decoder } = of;
  const core = openCore(
    'tiny',
    {
      ...of,
      encode: (medium, options) => {
        calls.tower++;
        return of.encode(medium, options);
      },
      decoder: {
        ...decoder,
        scores: (x, rows) => {
          const result = decoder.scores(x, rows);
          scores.push(Buffer.from(floats(result).slice().buffer).toString('base64'));
          return result;
        },
      },
      dispose: () => undefined,
    },
    { memoryBytes },
  );
  return { core, scores, calls };
}

async function tell(
  { core, scores }: ReturnType<typeof watched>,
  request: EngineRequest,
  signal = NEVER,
): Promise<Told> {
  const from = scores.length;
  let text = '';
  let tokens: PromptTokens | undefined;
  await core.answer({ maxTokens: 6, ...request }, signal, (event: EngineEvent) => {
    if (event.type === 'text') text += event.text;
    if (event.type === 'begin') tokens = event.tokens;
  });
  return { text, tokens: tokens as PromptTokens, scores: scores.slice(from) };
}

/** Waits until the engine has done what it does while nothing runs. */
const idle = async (): Promise<void> => {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
};

describe.each(['dense', 'sparsevila', 'visionzip', 'quest', 'snapkv', 'fastv', 'sparsevlm+', 'cdpruner'])(
  'with %s',
  (method) => {
    /** Conversations that have beginnings in common. */
    async function conversations(): Promise<EngineRequest[]> {
      const alone = watched(0);
      const first = [user(picture(0), FIRST)];
      const { text } = await tell(alone, { messages: first, sparsity: { method } });
      const next = [...first, assistant(text), user(SECOND)];
      const all: Messages[] = [
        first,
        [user(picture(0), SECOND)],
        next,
        [...next, assistant('d5'), user(picture(1), FIRST)],
        [user(picture(0), picture(1), FIRST)],
        [user(picture(0), picture(2), FIRST)],
        [user(picture(1), FIRST)],
        first,
        [{ role: 'system', content: 'Answer briefly.' }, ...first],
      ];
      return all.map((messages) => ({ messages, sparsity: { method, prefillSparsity: 0.4, decodeSparsity: 0.5 } }));
    }

    it('requests have the same bits as without the memory', async () => {
      const requests = await conversations();
      await tell(watched(0), requests[3] as EngineRequest); // Constants are made by the first request.
      const before = countTensors();
      const [without, with_] = [watched(0), watched(2 ** 28)];
      const cached: number[] = [];
      for (const request of requests) {
        const expected = await tell(without, request);
        const told = await tell(with_, request);
        await idle();
        expect(told.scores).toEqual(expected.scores);
        expect(told.text).toBe(expected.text);
        expect({ ...told.tokens, cached: 0 }).toEqual(expected.tokens);
        cached.push(told.tokens.cached);
      }
      expect(cached[0]).toBe(0);
      // A method that drops visual rows between layers, or prunes by the question, looks at it before: only text is shared.
      const drops = ['fastv', 'sparsevlm+', 'cdpruner'].includes(method);
      const visual = (await tell(without, requests[0] as EngineRequest)).tokens.visualKept;
      for (const i of [1, 2, 7]) expect((cached[i] as number) >= visual).toBe(!drops);
      await with_.core.close();
      expect(countTensors()).toEqual(before);
    });
  },
);

it('rows of a prompt that all attend to each other are not remembered', async () => {
  const prompts = await loadModel(join(FIXTURES, 'paligemma/two'));
  const [without, with_] = [watched(0, prompts), watched(2 ** 28, prompts)];
  for (const question of [FIRST, SECOND, FIRST]) {
    const request = { messages: [user(picture(0), question)] };
    expect(await tell(with_, request)).toEqual(await tell(without, request));
  }
  expect(with_.core.stats().cachedPrefixes).toBe(0);
  for (const { core } of [without, with_]) await core.close();
  prompts.dispose();
});

describe('layers that keep states', () => {
  it('go back to saved points, with the same bits as without the memory', async () => {
    const states = await loadModel(STATES);
    const [without, with_] = [watched(0, states), watched(2 ** 28, states)];
    const first = [user(picture(0), FIRST)];
    const { text } = await tell(without, { messages: first });
    const requests: Messages[] = [
      first,
      [user(picture(0), SECOND)],
      [...first, assistant(text), user(SECOND)],
      [user(picture(0), 'Read row 7.')],
      [...first, assistant(text), user(FIRST)],
    ];
    const cached: number[] = [];
    for (const messages of requests) {
      const expected = await tell(without, { messages });
      const told = await tell(with_, { messages });
      expect(told.scores).toEqual(expected.scores);
      cached.push(told.tokens.cached);
    }
    for (const i of [1, 2, 3, 4]) expect(cached[i]).toBeGreaterThan(0);
    expect(with_.calls.tower).toBe(1);
    await with_.core.close();
    states.dispose();
  });
});

describe('a picture that comes again', () => {
  it('is neither decoded nor encoded again, one after another or at the same time', async () => {
    const own = watched(2 ** 28);
    await tell(own, { messages: [user(picture(0), FIRST)] });
    expect(own.calls.tower).toBe(1);
    await tell(own, { messages: [user(picture(0), SECOND)] });
    expect(own.calls.tower).toBe(1);
    const questions = [FIRST, SECOND, 'Read row 7.', 'Where is the yellow 2?'];
    const told = await Promise.all(questions.map((text) => tell(own, { messages: [user(picture(3), text)] })));
    expect(own.calls.tower).toBe(2);
    expect(told.filter(({ tokens }) => tokens.cached === 0)).toHaveLength(1);
    expect(own.core.stats()).toMatchObject({ cachedPictures: 2, running: 0 });
    await own.core.close();
  });

  it('has a copy of its rows made ahead, while nothing runs', async () => {
    const before = countTensors();
    const own = watched(2 ** 28);
    await tell(own, { messages: [user(picture(0), FIRST)] });
    const { cachedBytes } = own.core.stats();
    await idle();
    const copied = own.core.stats().cachedBytes;
    expect(copied).toBeGreaterThan(cachedBytes);
    // The next request takes the copy, which is then remembered as its rows.
    await tell(own, { messages: [user(picture(0), SECOND)] });
    expect(own.core.stats().cachedBytes).toBe(copied);
    await idle();
    await own.core.close();
    expect(countTensors()).toEqual(before);
  });

  it('does not wait for a request that is aborted', async () => {
    const own = watched(2 ** 28);
    const aborter = new AbortController();
    const reason = new Error('enough');
    const first = tell(own, { messages: [user(picture(0), FIRST)] }, aborter.signal);
    const second = tell(own, { messages: [user(picture(0), SECOND)] });
    setImmediate(() => aborter.abort(reason));
    await expect(first).rejects.toBe(reason);
    expect((await second).text).not.toBe('');
    await own.core.close();
  });
});

describe('the memory', () => {
  it('stays within its bytes, forgets the oldest first, and leaves nothing behind', async () => {
    const before = countTensors();
    const all = watched(2 ** 28);
    for (let i = 0; i < 3; i++) await tell(all, { messages: [user(picture(i), FIRST)] });
    const { cachedBytes, cachedPrefixes, kvBytes } = all.core.stats();
    expect([cachedPrefixes, kvBytes]).toEqual([3, 0]);
    await all.core.close();

    const budget = cachedBytes / 2;
    const small = watched(budget);
    const flat = new Set<string>();
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 5; i++) {
        await tell(small, { messages: [user(picture(i), FIRST)] });
        expect(small.core.stats().cachedBytes).toBeLessThanOrEqual(budget);
      }
      flat.add(JSON.stringify(countTensors()));
    }
    expect(flat.size).toBe(1);
    expect(small.core.stats().cachedPrefixes).toBeGreaterThan(0);
    expect((await tell(small, { messages: [user(picture(4), SECOND)] })).tokens.cached).toBeGreaterThan(0);
    expect((await tell(small, { messages: [user(picture(0), SECOND)] })).tokens.cached).toBeLessThan(20);
    await small.core.close();
    expect(countTensors()).toEqual(before);
  });
});

describe('the memory of the machine', () => {
  const request: EngineRequest = { messages: [user({ kind: 'image', image: scene(0) }, FIRST)], maxTokens: 4 };
  const answered = async (core: Core, own = request): Promise<string[]> => {
    const types: string[] = [];
    await core.answer(own, NEVER, ({ type }) => types.push(type));
    return types;
  };

  it('is awaited, and refused if nothing could make room', async () => {
    let free = 2 ** 28;
    const core = openCore('tiny', { ...model, dispose: () => undefined }, { memoryBytes: 0 }, () => free);
    expect((await errorOf(() => answered(core))).code).toBe('ERR_OUT_OF_MEMORY');
    // Room for one request at a time: the second one begins when the first one has ended.
    const most = { ...request, maxTokens: 40 };
    for (let refused = true; refused; free += 2 ** 16) refused = !(await answered(core, most).catch(() => undefined));
    const order: string[] = [];
    await Promise.all([0, 1].map(() => core.answer(most, NEVER, ({ type }) => order.push(type))));
    expect(order.filter((type) => type !== 'text')).toEqual(['begin', 'end', 'begin', 'end']);
    await core.close();
  });

  it('is taken from what is remembered first', async () => {
    let free = 2 ** 30;
    const core = openCore('tiny', { ...model, dispose: () => undefined }, { memoryBytes: 2 ** 26 }, () => free);
    await answered(core);
    expect(core.stats().cachedPrefixes).toBe(1);
    free = 2 ** 28;
    const other = { ...request, messages: [user(picture(7), FIRST)] };
    expect(await answered(core, other)).toContain('end');
    expect(core.stats().cachedPrefixes).toBe(1);
    await core.close();
  });
});
