// A script for dropped.spec.ts, in a process of its own, started with --expose-gc: drops sessions and answers without `dispose`, collects
// garbage, and prints what was seen as a JSON line.

import { load, type Model, sparseVila } from '../../src';
import { errorOf } from '../image/fixtures';
import { scene, TINY } from '../support/assets';
import { countTensors, type TensorCount } from '../support/counts';

export interface Dropped {
  readonly before: TensorCount;
  readonly held: TensorCount;
  readonly after: TensorCount;
}

const QUESTION = 'What is at b4?';
const LONG_QUESTION = 'List the red objects.';
const IMAGES = { images: [scene(0)] };

/** Collects garbage, and waits until what was collected has been freed. What a freed object held is collected in the next round. */
async function collected(): Promise<void> {
  for (let i = 0; i < 12; i++) {
    gc?.();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const SCRIPTS: Readonly<Record<string, (model: Model) => Promise<unknown>>> = {
  /** The tensors before, while and after sessions are held: unused ones, ones after a turn, and ones between two pieces of an answer. */
  async objects(model): Promise<Dropped> {
    await collected();
    const before = countTensors();
    await (async () => {
      for (let i = 0; i < 20; i++) model.session();
      for (let i = 0; i < 5; i++) await model.session({ method: sparseVila() }).ask(QUESTION, IMAGES);
      for (let i = 0; i < 5; i++) {
        const answer = model.session({ method: sparseVila() }).ask(LONG_QUESTION, IMAGES);
        await answer[Symbol.asyncIterator]().next();
      }
    })();
    const held = countTensors();
    await collected();
    return { before, held, after: countTensors() };
  },

  /** What a session says while an iteration of its answer is dropped, and after it was collected. */
  async iteration(model) {
    using chat = model.session();
    await (async () => {
      await chat.ask(LONG_QUESTION, IMAGES)[Symbol.asyncIterator]().next();
    })();
    const { code } = await errorOf(() => chat.ask(QUESTION).text());
    await collected();
    return [code, await chat.ask(QUESTION)];
  },

  /** The answer of two dropped sessions: one whose text is awaited, one whose iteration is held over a collection. */
  async reachable(model) {
    const text = (() => model.session().ask(LONG_QUESTION, IMAGES).text())();
    const iterator = (() => model.session().ask(LONG_QUESTION, IMAGES)[Symbol.asyncIterator]())();
    let pieces = (await iterator.next()).value as string;
    await collected();
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) pieces += next.value;
    return [await text, pieces];
  },
};

async function main(): Promise<void> {
  const script = SCRIPTS[process.argv[2] ?? ''];
  if (script === undefined) throw new Error(`Expected one of ${Object.keys(SCRIPTS)}, received ${process.argv[2]}.`);
  const warnings: (string | undefined)[] = [];
  process.on('warning', (warning: Error & { code?: string }) => warnings.push(warning.code));
  const model = await load(TINY);
  {
    using warm = model.session({ method: sparseVila() });
    await warm.ask(QUESTION, IMAGES);
  }
  const seen = await script(model);
  console.log(JSON.stringify({ seen, warnings: warnings.filter((code) => code?.startsWith('SPARSEVILA')) }));
  model.dispose();
}

void main();
