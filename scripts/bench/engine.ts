// `bench engine`: an engine over a checkpoint: tokens per second of conversations one after another and together, the time to the first token of
// a second question about a picture, how long the caller's event loop is blocked, and memory over many requests.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { isDeepStrictEqual } from 'node:util';
import type { CommandModule } from 'yargs';
import { type Engine, type EngineEvent, type EngineRequest, load, openEngine } from '../../src';
import { packageFolder } from '../../src/runtime/paths';
import { median } from './timing';

interface Options {
  model: string;
  conversations: number;
  pictures: number;
  tokens: number;
  rounds: number;
}

export const ENGINE: CommandModule<object, Options> = {
  command: 'engine',
  describe:
    'Conversations one after another and together, time to the first token, and how long the event loop is blocked',
  builder: (yargs) =>
    yargs
      .option('model', { type: 'string', demandOption: true, describe: 'Checkpoint folder, or owner/name on the Hub' })
      .option('conversations', { type: 'number', default: 8, describe: 'How many at once' })
      .option('pictures', {
        type: 'number',
        default: 10,
        describe: 'Pictures of each; the packaged model makes 100 rows of one',
      })
      .option('tokens', { type: 'number', default: 48, describe: 'Tokens of each answer' })
      .option('rounds', { type: 'number', default: 3, describe: 'Interleaved rounds, of which the median counts' })
      .example('$0 checkpoint --shape tiny-0.39b --out tiny-039b', 'random weights of a real shape')
      .example('$0 engine --model tiny-039b', ''),
  handler: (options) => benchEngine(options),
};

const scene = (i: number): string =>
  join(packageFolder(), 'assets', 'calibration', `scene-${String(i % 24).padStart(2, '0')}.png`);

/** A request about pictures of its own; another `question` is another question about the same pictures. */
function requestOf(i: number, { pictures, tokens }: Options, question = 'What is at b4?'): EngineRequest {
  const images = Array.from({ length: pictures }, (_, k) => ({
    kind: 'image' as const,
    image: readFileSync(scene(i * 3 + k)),
  }));
  return { messages: [{ role: 'user', content: [...images, question] }], maxTokens: tokens, temperature: 1, seed: i };
}

interface Answered {
  readonly text: string;
  /** Milliseconds to the first text, and of everything after it. */
  readonly first: number;
  readonly rest: number;
  readonly end: Extract<EngineEvent, { type: 'end' }>;
}

async function answer(engine: Engine, request: EngineRequest): Promise<Answered> {
  const begin = performance.now();
  let text = '';
  let first: number | undefined;
  let end: EngineEvent | undefined;
  for await (const event of engine.run(request)) {
    if (event.type === 'begin') first = performance.now() - begin;
    if (event.type === 'text') text += event.text;
    end = event;
  }
  if (end?.type !== 'end' || first === undefined) throw new Error('An answer has no end.');
  return { text, first, rest: performance.now() - begin - first, end };
}

async function benchEngine(options: Options): Promise<void> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const engine = await openEngine(options.model, { memoryBytes: 2 ** 30 });
  const requests = Array.from({ length: options.conversations }, (_, i) => requestOf(i, options));
  // The pictures are prefilled once, so that what follows is decoding.
  for (const request of requests) await answer(engine, { ...request, maxTokens: 1 });
  const blocked = async (work: () => Promise<void>): Promise<number> => {
    delay.reset();
    delay.enable();
    await work();
    delay.disable();
    return delay.max / 1e6;
  };
  const alone: number[] = [];
  const together: number[] = [];
  let equal = true;
  let rows = 0;
  let worst = 0;
  for (let round = 0; round < options.rounds; round++) {
    const one: Answered[] = [];
    for (const request of requests) one.push(await answer(engine, request));
    let all: Answered[] = [];
    const begin = performance.now();
    worst = Math.max(
      worst,
      await blocked(async () => {
        all = await Promise.all(requests.map((request) => answer(engine, request)));
      }),
    );
    const seconds = (performance.now() - begin) / 1000;
    const generated = (answers: readonly Answered[]): number =>
      answers.reduce((sum, { end }) => sum + end.usage.generated, 0);
    alone.push(generated(one) / (one.reduce((sum, { first, rest }) => sum + first + rest, 0) / 1000));
    together.push(generated(all) / seconds);
    equal &&= isDeepStrictEqual(
      all.map(({ text }) => text),
      one.map(({ text }) => text),
    );
    rows = one[0]?.end.usage.prompt ?? 0;
  }
  // Other pictures, which have to be encoded and prefilled while the event loop is watched.
  worst = Math.max(
    worst,
    await blocked(async () => {
      await Promise.all([50, 51, 52].map((i) => answer(engine, requestOf(i, options))));
    }),
  );
  const seconds = await secondQuestion(engine, options);
  await engine.close();
  const memory = await memoryOver(options);
  const result = {
    ...{ model: options.model, conversations: options.conversations, promptRows: rows, equal },
    ...{ tokPerS: median(alone), tokPerSTogether: median(together), speedup: median(together) / median(alone) },
    ...{ eventLoopMs: worst, ...seconds, ...memory },
  };
  process.stdout.write(
    `${options.conversations} conversations of ${rows} rows: ${result.tokPerS.toFixed(1)} tok/s one after another, ` +
      `${result.tokPerSTogether.toFixed(1)} together, ${result.speedup.toFixed(2)}x; answers ${equal ? 'equal' : 'DIFFERENT'}\n` +
      `event loop blocked for at most ${worst.toFixed(1)} ms\n` +
      `second question: ${seconds.sessionFirstMs.toFixed(0)} ms to the first token in a session, ${seconds.engineFirstMs.toFixed(0)} ms in another request\n` +
      `memory: ${memory.rssMb.map((mb) => mb.toFixed(0)).join(', ')} MB\n`,
  );
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

/** Time to the first token of a second question: in a session of the library, and in another request to the engine. */
async function secondQuestion(engine: Engine, options: Options) {
  const questions = Array.from({ length: 2 * options.rounds + 1 }, (_, i) => `What is at c${i + 1}?`);
  const inEngine: number[] = [];
  for (const question of questions)
    inEngine.push((await answer(engine, { ...requestOf(0, options, question), maxTokens: 2 })).first);
  const model = await load(options.model);
  const chat = model.session();
  const inSession: number[] = [];
  for (const [i, question] of questions.entries()) {
    const mark = chat.mark();
    const begin = performance.now();
    const given = i === 0 ? { images: Array.from({ length: options.pictures }, (_, k) => scene(k)) } : {};
    const pieces = chat.ask(question, { ...given, maxTokens: 2, history: 'forget' })[Symbol.asyncIterator]();
    await pieces.next();
    inSession.push(performance.now() - begin);
    await pieces.return?.();
    if (i > 0) chat.rewind(mark);
  }
  chat.dispose();
  model.dispose();
  return { sessionFirstMs: median(inSession.slice(1)), engineFirstMs: median(inEngine.slice(1)) };
}

/** Resident memory of this process, after each of several rounds of requests about more pictures than an engine may remember. */
async function memoryOver(options: Options): Promise<{ rssMb: number[] }> {
  const rssMb: number[] = [];
  const engine = await openEngine(options.model, { memoryBytes: 2 ** 25 });
  const own = { ...options, pictures: 1, tokens: 8 };
  for (let round = 0; round < 6; round++) {
    await Promise.all(Array.from({ length: 24 }, (_, i) => answer(engine, requestOf(i, own, `Read row ${round}.`))));
    rssMb.push(process.memoryUsage.rss() / 2 ** 20);
  }
  await engine.close();
  return { rssMb };
}
