// QuoTA's scores: objects of a question, the probability of "A" for each frame, and the method that they make.

import { load, type Model, quotaFor } from '../../src';
import { requestedMethod } from '../../src/engine/request';
import { framePrompt, frameScores, objectsIn } from '../../src/session/quota_scores';
import { createSession } from '../../src/session/session';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { withoutLeak } from '../support/leaks';
import { watch } from '../support/watch';

let model: Model;
beforeAll(async () => {
  model = await load(TINY);
});
afterAll(() => model.dispose());

it.each([
  ['Step 1: Yes\nStep 2: ["dog", "joy"]\nStep 3: ["dog"]', ['dog']],
  ['step 1: yes, since … step 3: []', []],
  ['Step 1: no\nStep 3: ["dog"]', []],
  ["Step 1: yes\nStep 3: ['dog']", []],
  ['Step 1: yes\nStep 3: ["dog", 7, ""]', ['dog']],
  ['red F', []],
])('reads the objects of %j', (answer, objects) => {
  expect(objectsIn(answer)).toEqual(objects);
});

it('asks about the objects, or without any about the question', () => {
  expect(framePrompt('Who?', ['a dog', 'a cat'])).toMatch(
    /^Does the image contain any object of a dog, a cat\? A\. yes/,
  );
  expect(framePrompt('Who?', [])).toMatch(/^Who\?\nDoes the image contain sufficient information/);
});

const frames = [0, 1, 2, 3].map(scene);

it('scores each frame by the probability of A, of the softmax of the raw logits', async () => {
  const request = framePrompt('Where is the yellow 2?', []);
  const scores = await frameScores(model, frames, request, undefined);
  const letter = model.tokenizer.encode('A').at(-1) ?? 0;
  for (const [i, frame] of frames.entries()) {
    const watched = watch(model);
    using session = createSession(watched.model);
    await session.ask(request, { images: [frame], maxTokens: 1 });
    const logits = watched.logits[0]?.subarray(-model.decoder.config.vocabSize) ?? new Float32Array();
    const powers = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    expect(scores[i]).toBeCloseTo(Math.exp(logits[letter] ?? Number.NaN) / powers, 6);
  }
  expect(new Set(scores).size).toBe(frames.length);
});

it('gives frames of higher scores more rows, within the budget, and frees what it took', async () => {
  const question = 'Where is the yellow 2?';
  await withoutLeak(async () => {
    const method = await quotaFor(
      model,
      question,
      { videos: [{ frames }] },
      { prefillSparsity: 0.5, objects: ['a 2'] },
    );
    using session = model.session({ method });
    const answer = session.ask(question, { videos: [{ frames }], maxTokens: 1 });
    await answer;
    const scores = await frameScores(model, frames, framePrompt(question, ['a 2']), undefined);
    const kept = answer.stats?.media[0]?.kept ?? new Int32Array();
    const rows = scores.map((_, t) => kept.filter((token) => Math.floor(token / 100) === t).length);
    const order = (values: number[]) => values.map((_, i) => i).sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0));
    expect(kept.length).toBeLessThanOrEqual(200);
    expect(kept.length).toBeGreaterThan(150);
    expect(rows[order(scores)[0] ?? 0]).toBe(Math.max(...rows));
    expect(rows[order(scores)[3] ?? 0]).toBe(Math.min(...rows));
  });
});

it('without films asks nothing; refuses a stream; an engine refuses the method', async () => {
  const asked = { ...model, prepare: () => Promise.reject(new Error('asked')) };
  expect((await quotaFor(asked, 'What?', { images: [scene(0)] })).name).toBe('quota');
  async function* stream() {
    yield scene(0);
  }
  const refused = errorOf(() => quotaFor(model, 'What?', { videos: [{ frames: stream() }] }));
  expect((await refused).code).toBe('ERR_VIDEO');
  expect(() => requestedMethod({ method: 'quota' })).toThrow(expect.objectContaining({ code: 'ERR_OPTION_INVALID' }));
});
