// What an engine remembers of Qwen3.5, whose states cannot lose rows: a request that begins with known rows has the bits that it has without.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { EngineRequest } from '../../src';
import { openCore } from '../../src/engine/core';
import { loadModel } from '../../src/models/load';
import type { VisionLanguageModel } from '../../src/models/model';
import { floats } from '../../src/ops/run';
import { FIXTURES } from '../support/assets';
import { countTensors } from '../support/leaks';

const FOLDER = join(FIXTURES, 'qwen_vl', 'qwen3.5');
const picture = { kind: 'image' as const, image: readFileSync(join(FOLDER, 'image0.png')) };
const FIRST: EngineRequest['messages'][number] = { role: 'user', content: [picture, 'What is in the picture?'] };
const OTHER: EngineRequest['messages'][number] = { role: 'user', content: [picture, 'Which was larger?'] };

let model: VisionLanguageModel;
beforeAll(async () => {
  model = { ...(await loadModel(FOLDER)), stopIds: [] };
  // Constants that are made once and kept.
  await answers('dense', 0);
});
afterAll(() => model.dispose());

/** Answers requests one after another; returns the scores of every token, and how many rows each began with. */
async function answers(method: string, memoryBytes: number) {
  const scores: string[] = [];
  const cached: number[] = [];
  const { decoder } = model;
  const watched = {
    ...decoder,
    scores: (...given: Parameters<typeof decoder.scores>) => {
      const result = decoder.scores(...given);
      scores.push(Buffer.from(floats(result).slice().buffer).toString('base64'));
      return result;
    },
  };
  const core = openCore('qwen3.5', { ...model, decoder: watched, dispose: () => undefined }, { memoryBytes });
  const ask = async (messages: EngineRequest['messages']): Promise<string> => {
    let text = '';
    await core.answer({ messages, sparsity: { method }, maxTokens: 5 }, new AbortController().signal, (event) => {
      if (event.type === 'begin') cached.push(event.tokens.cached);
      if (event.type === 'text') text += event.text;
    });
    return text;
  };
  const said = await ask([FIRST]);
  await ask([OTHER]);
  const history = [FIRST, { role: 'assistant' as const, content: said }];
  await ask([...history, { role: 'user', content: 'And how does this one differ?' }]);
  await ask([...history, { role: 'user', content: 'Which was larger?' }]);
  await core.close();
  return { scores, cached };
}

it.each(['dense', 'sparsevila', 'visionzip', 'snapkv', 'fastv'])(
  '%s: bits are those without memory',
  async (method) => {
    const before = countTensors();
    const [known, fresh] = [await answers(method, 2 ** 26), await answers(method, 0)];
    expect(known.scores).toEqual(fresh.scores);
    expect(fresh.cached).toEqual([0, 0, 0, 0]);
    // Dropping between layers looks at the question, so that only text before a picture could be known; pruned pictures are too small to be kept alone.
    if (method !== 'fastv') expect(known.cached.at(-1)).toBeGreaterThan(0);
    if (method === 'dense') expect(known.cached.slice(1).every((rows) => rows > 20)).toBe(true);
    expect(countTensors()).toEqual(before);
  },
);
