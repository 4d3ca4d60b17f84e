// A script for threads.spec.ts, in a process of its own: threads that load the model and ask, at the same time or one after
// another. Prints one JSON line, what each thread answered.

import { join } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { load, sparseVila } from '../../src';
import { TINY } from '../support/assets';

const PICTURE = join(TINY, '../demo/scene.png');
const QUESTION = 'Where is the yellow 2?'; // in d5

/** Asks `count` times, each time in a session of its own. */
async function answers(count: number): Promise<string[]> {
  const model = await load(TINY);
  const given: string[] = [];
  for (let i = 0; i < count; i++) {
    const chat = model.session({ method: sparseVila() });
    given.push(await chat.ask(QUESTION, { images: [PICTURE] }).text());
    chat.dispose();
  }
  model.dispose();
  return given;
}

/** What a worker answers; rejects when it fails, or ends without an answer. */
function worker(count: number): Promise<string[]> {
  return new Promise((done, fail) => {
    const thread = new Worker(__filename, { workerData: count });
    let given: string[] | undefined;
    thread.on('message', (message: string[]) => {
      given = message;
    });
    thread.on('error', fail);
    thread.on('exit', (code) => (given === undefined ? fail(new Error(`a worker ended with ${code}`)) : done(given)));
  });
}

/** Starts a worker that asks without end, and terminates it after `ms`. */
async function terminated(ms: number): Promise<string[]> {
  const thread = new Worker(__filename, { workerData: Number.POSITIVE_INFINITY });
  await new Promise((done) => setTimeout(done, ms));
  await thread.terminate();
  return [];
}

const SCRIPTS: Readonly<Record<string, () => Promise<string[][]>>> = {
  alone: async () => [await worker(2)],
  inARow: async () => [await worker(1), await worker(1), await answers(1)],
  together: () => Promise.all([answers(6), worker(6), worker(6)]),
  // Workers end while loading, while asking, and after others have begun.
  terminated: async () => {
    const rest = worker(4);
    for (const ms of [0, 60, 250, 700]) await terminated(ms);
    return [await rest, await answers(1)];
  },
};

async function main(): Promise<void> {
  const script = SCRIPTS[process.argv[2] ?? ''];
  if (script === undefined) throw new Error(`Expected one of ${Object.keys(SCRIPTS)}, received ${process.argv[2]}.`);
  console.log(JSON.stringify(await script()));
}

if (isMainThread) void main();
else void answers(workerData as number).then((given) => parentPort?.postMessage(given));
