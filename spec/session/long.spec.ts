// One process for a long time: thousands of turns, sessions opened and closed, images shown again. Tensors stay as many as they are, and
// memory stops growing.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { load, type Model, type Session, sparseVila } from '../../src';
import { start } from '../../src/runtime/start';
import { conversations, scene, TINY } from '../support/assets';
import { countTensors } from '../support/leaks';

const TURNS = 2000;
/** The time limit on a busy machine; an idle machine needs a tenth of it. */
const PATIENCE_MS = 300_000;
/** Turns until buffers, caches of the runtime and the heap have their size. */
const WARM_UP = 500;
const GROWTH = 0.05;
/** Each of these turns opens a session of its own, sees a picture, and disposes of the session. */
const VISIT_EVERY = 100;
/** The long conversation keeps its text for so many turns, then goes back to its image. */
const REWIND_EVERY = 10;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Resident memory without what the garbage collector has not got to yet, which differs from run to run. */
function resident(): number {
  collect();
  return process.memoryUsage.rss();
}

const QUESTIONS = conversations().flatMap(({ turns }) => turns.map(({ question }) => question));

let model: Model;
const { native } = start();
const threads = native.threads();
beforeAll(async () => {
  // What is counted does not depend on threads, and other specs run beside this one.
  native.threads(1);
  model = await load(TINY);
});
afterAll(() => {
  model.dispose();
  native.threads(threads);
});

async function visit(i: number): Promise<void> {
  using chat = model.session(i % 2 === 0 ? { method: sparseVila() } : {});
  await chat.ask(QUESTIONS[i % QUESTIONS.length] ?? '', { images: [scene(i % 24)] }).text();
}

async function turns(kept: Session, forgetting: Session, from: number, to: number): Promise<void> {
  const home = kept.mark();
  for (let i = from; i < to; i++) {
    const question = QUESTIONS[i % QUESTIONS.length] ?? '';
    await (i % 2 === 0 ? kept : forgetting).ask(question, { maxTokens: 2 }).text();
    if (i % REWIND_EVERY === 0) kept.rewind(home);
    if (i % VISIT_EVERY === 0) await visit(i);
  }
  kept.rewind(home);
}

it(
  `${TURNS} turns leave no tensor behind, and memory grows by less than ${GROWTH * 100} % once warm`,
  async () => {
    using kept = model.session();
    using forgetting = model.session({ method: sparseVila(), history: 'forget' });
    await kept.ask('What is at b4?', { images: [scene(0)], history: 'forget' }).text();
    await forgetting.ask('What is at b4?', { images: [scene(0)] }).text();
    const tensors = countTensors();
    const answer = await forgetting.ask('What is at i7?').text();
    await turns(kept, forgetting, 0, WARM_UP);
    const warm = resident();
    await turns(kept, forgetting, WARM_UP, TURNS);
    expect(countTensors()).toEqual(tensors);
    expect(resident() / warm - 1).toBeLessThan(GROWTH);
    // The conversation is unchanged as well.
    expect(await forgetting.ask('What is at i7?').text()).toBe(answer);
  },
  PATIENCE_MS,
);
