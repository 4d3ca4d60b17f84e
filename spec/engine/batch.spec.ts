// Conversations that are answered together give the bits that each gives alone, and one that ends early does not affect the others.

import { type EngineEvent, type EngineRequest, METHODS } from '../../src';
import { type Core, openCore } from '../../src/engine/core';
import { loadModel } from '../../src/models/load';
import type { VisionLanguageModel } from '../../src/models/model';
import { floats } from '../../src/ops/run';
import { scene, TINY } from '../support/assets';
import { countTensors } from '../support/leaks';
import { draftsOf } from '../support/verified';

const QUESTIONS = ['What is at b4?', 'How many shapes are there?', 'Read row 7.', 'Where is the yellow 2?'];
const NEVER = new AbortController().signal;

let model: VisionLanguageModel;
beforeAll(async () => {
  // Answers end by their number of tokens, so that many run at once.
  model = { ...(await loadModel(TINY)), stopIds: [] };
});
afterAll(() => model.dispose());

/** Eight requests that differ in everything. */
const requests = [
  { method: 'dense', pictures: 1, turns: 1 },
  { method: 'sparsevila', pictures: 2, turns: 1 },
  { method: 'fastv', pictures: 1, turns: 2, temperature: 0.8, seed: 1 },
  { method: 'snapkv', pictures: 1, turns: 1, temperature: 1.2, topK: 40, seed: 2 },
  { method: 'dense', pictures: 0, turns: 3, repetitionPenalty: 1.1 },
  { method: 'sparsevila', pictures: 1, turns: 3, temperature: 1, topP: 0.9, seed: 3 },
  { method: 'quest', pictures: 2, turns: 2, maxTokens: 3 },
  { method: 'pyramiddrop', pictures: 1, turns: 1, temperature: 2, seed: 4 },
].map(({ method, pictures, turns, ...options }, i): EngineRequest => {
  const images = Array.from({ length: pictures }, (_, k) => ({ kind: 'image' as const, image: scene(2 * i + k) }));
  const question = (turn: number): string => QUESTIONS[(i + turn) % 4] as string;
  const messages = Array.from({ length: turns }, (_, turn) => [
    { role: 'user' as const, content: turn === 0 ? [...images, question(0)] : question(turn) },
    { role: 'assistant' as const, content: `d${turn}` },
  ]).flat();
  return { messages: messages.slice(0, -1), sparsity: { method }, maxTokens: 20 + 4 * i, ...options };
});

interface Told {
  text: string;
  end: EngineEvent | undefined;
}

async function tell(
  core: Core,
  request: EngineRequest,
  signal = NEVER,
  onText = (_: string): void => undefined,
): Promise<Told> {
  const told: Told = { text: '', end: undefined };
  await core.answer(request, signal, (event) => {
    if (event.type === 'end') told.end = event;
    if (event.type !== 'text') return;
    told.text += event.text;
    onText(told.text);
  });
  return told;
}

/** A model that records the scores of all rows, and the number of conversations of each step. */
function recorded(): { model: VisionLanguageModel; scores: Set<string>; batches: number[] } {
  const scores = new Set<string>();
  const batches: number[] = [];
  const { decoder } = model;
  return {
    ...{ scores, batches },
    model: {
      ...model,
      decoder: {
        ...decoder,
        forward: (x, batch, options) => {
          if (batch.length > 1) batches.push(batch.length);
          return decoder.forward(x, batch, options);
        },
        scores: (x, rows) => {
          const result = decoder.scores(x, rows);
          const values = floats(result);
          const width = values.length / rows.length;
          for (const row of rows.keys())
            scores.add(Buffer.from(values.slice(row * width, (row + 1) * width).buffer).toString('base64'));
          return result;
        },
      },
    },
  };
}

const finish = ({ end }: Told): unknown => end?.type === 'end' && { finish: end.finish, usage: end.usage };

describe('requests answered together', () => {
  it('have the bits of requests answered one after another', async () => {
    expect(requests.every(({ sparsity }) => METHODS.some(({ name }) => name === sparsity?.method))).toBe(true);
    const alone = recorded();
    const one = openCore('tiny', alone.model, { memoryBytes: 0 });
    const expected: Told[] = [];
    for (const request of requests) expected.push(await tell(one, request));
    expect(alone.batches).toEqual([]);
    const before = countTensors();

    const beside = recorded();
    const all = openCore('tiny', beside.model, { memoryBytes: 0 });
    const told = await Promise.all(requests.map((request) => tell(all, request)));
    expect(told.map(({ text }) => text)).toEqual(expected.map(({ text }) => text));
    expect(told.map(finish)).toEqual(expected.map(finish));
    expect(beside.scores).toEqual(alone.scores);
    expect(Math.max(...beside.batches)).toBeGreaterThan(3);
    expect(countTensors()).toEqual(before);
  });

  it('give the tokens of dense decoding if they are verified', async () => {
    const restore = draftsOf((round) => (round % 4) + 1);
    const verified = ({ sparsity, ...request }: EngineRequest): EngineRequest => ({
      ...request,
      sparsity: { method: 'quest', decodeSparsity: 0.97, verify: 'dense' },
    });
    const dense = requests.map(
      ({ sparsity, ...request }): EngineRequest => ({ ...request, sparsity: { method: 'dense' } }),
    );
    try {
      const core = openCore('tiny', model, { memoryBytes: 0 });
      const expected: Told[] = [];
      for (const request of dense) expected.push(await tell(core, request));
      const before = countTensors().tfjs;
      // The conversations beside are those of the requests themselves, of all methods.
      const told = await Promise.all([...requests.map(verified), ...requests].map((request) => tell(core, request)));
      expect(told.slice(0, 8).map(({ text }) => text)).toEqual(expected.map(({ text }) => text));
      const usages = told.map(({ end }) => (end?.type === 'end' ? end.usage : undefined));
      for (const [i, usage] of usages.entries()) {
        if (i >= 8) expect(usage).toMatchObject({ drafted: 0, accepted: 0 });
        else if (usage?.visualKept !== 0) expect(usage?.drafted).toBeGreaterThan(0);
      }
      const sumOf = (name: 'drafted' | 'accepted'): number =>
        usages.reduce((sum, usage) => sum + (usage?.[name] ?? 0), 0);
      expect(sumOf('accepted')).toBeGreaterThan(8);
      expect(sumOf('drafted')).toBeGreaterThan(sumOf('accepted'));
      // What a verified request leaves is what a prefill gives, so that the next turn begins with the answer.
      const memory = openCore('tiny', { ...model, dispose: () => undefined }, { memoryBytes: 2 ** 26 });
      const [first] = requests.map(verified) as [EngineRequest];
      const { text } = await tell(memory, first);
      const again: EngineRequest = {
        ...first,
        messages: [...first.messages, { role: 'assistant', content: text }, { role: 'user', content: 'Read row 7.' }],
      };
      const fresh = await tell(core, again);
      const known = await tell(memory, again);
      expect(known.text).toBe(fresh.text);
      const [rows, prompt] = [known, told[0]].map((one) => (one?.end?.type === 'end' ? one.end.usage : undefined));
      expect(rows?.cached).toBeGreaterThan(prompt?.prompt ?? 1000);
      await memory.close();
      expect(countTensors().tfjs).toBe(before);
    } finally {
      restore();
    }
  });

  it('prefill their short questions about known pictures in one call', async () => {
    const asked = QUESTIONS.map(
      (question, i): EngineRequest => ({
        messages: [{ role: 'user', content: [{ kind: 'image', image: scene(i) }, question] }],
        maxTokens: 4,
      }),
    );
    const alone = openCore('tiny', model, { memoryBytes: 0 });
    const expected: Told[] = [];
    for (const request of asked) expected.push(await tell(alone, request));
    let together = 0;
    const { forward } = model.decoder;
    const decoder: typeof model.decoder = {
      ...model.decoder,
      forward: (x, batch, options) => {
        together = Math.max(together, batch.filter(({ positions }) => positions.length > 1).length);
        return forward(x, batch, options);
      },
    };
    const core = openCore('tiny', { ...model, decoder }, { memoryBytes: 2 ** 26 });
    for (const request of asked) await tell(core, { ...request, maxTokens: 1 });
    expect(together).toBe(1);
    // Which requests meet depends on when their pictures have been read, so they are asked again until some do.
    for (let round = 0; round < 150 && together < 2; round++) {
      const told = await Promise.all(asked.map((request) => tell(core, request)));
      expect(told.map(({ text }) => text)).toEqual(expected.map(({ text }) => text));
    }
    expect(together).toBeGreaterThan(1);
  });

  it('are not affected by those that are aborted, fail or are refused', async () => {
    const core = openCore('tiny', model, { contextLength: 600, memoryBytes: 0 });
    const expected = await Promise.all(requests.map((request) => tell(core, request).catch((error: Error) => error)));
    const before = countTensors();
    const reason = new Error('enough');
    for (const cut of [0, 1, 15]) {
      const told = await Promise.all(
        requests.map((request, i) => {
          if (i % 2 === 0) return tell(core, request).catch((error: Error) => error);
          const aborter = new AbortController();
          if (cut === 0) setTimeout(() => aborter.abort(reason), 2 * i);
          return tell(core, request, aborter.signal, (text) => {
            if (cut > 0 && text.length >= cut) aborter.abort(reason);
          }).catch((error: Error) => error);
        }),
      );
      for (const [i, result] of told.entries()) {
        if (i % 2 === 0) expect(result).toEqual({ ...expected[i], end: expect.anything() });
      }
      expect(told.filter((result) => result === reason).length).toBeGreaterThan(0);
      expect(countTensors()).toEqual(before);
    }
    expect(core.stats()).toMatchObject({ running: 0, waiting: 0 });
  });

  it('fail alone if a call of the decoder fails', async () => {
    const failing = new Error('of one conversation');
    const broken: VisionLanguageModel = {
      ...model,
      decoder: {
        ...model.decoder,
        forward: (x, batch, options) => {
          if (batch.some(({ cache, views }) => views !== undefined && cache.limit === 500)) throw failing;
          return model.decoder.forward(x, batch, options);
        },
        cache: (type, limit) => model.decoder.cache(type, limit),
      },
    };
    let opened = 0;
    const one: VisionLanguageModel = {
      ...broken,
      decoder: { ...broken.decoder, cache: (type) => model.decoder.cache(type, ++opened === 2 ? 500 : 600) },
    };
    const core = openCore('tiny', one, { memoryBytes: 0 });
    const request = requests[1] as EngineRequest;
    const results = await Promise.allSettled([0, 1, 2].map(() => tell(core, request)));
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(results[1]).toMatchObject({ reason: { code: 'ERR_INTERNAL', cause: failing } });
  });
});
