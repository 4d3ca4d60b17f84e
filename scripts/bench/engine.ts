// `bench engine`: an engine over a checkpoint: tokens per second of conversations one after another and together, the time to the first token of
// a second question about a picture, how long the caller's event loop is blocked, and memory over many requests.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
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
  const engine = await openEngine(options.model, { memoryBytes: 2 ** 30 });
  const requests = Array.from({ length: options.conversations }, (_, i) => requestOf(i, options));
  // The pictures are prefilled once, so that what follows is decoding.
  for (const request of requests) await answer(engine, { ...request, maxTokens: 1 });
  const speed = await throughput(engine, requests, options.rounds);
  // Other pictures, which have to be encoded and prefilled while others are answered.
  const blocked = await blockedDuring(() =>
    Promise.all([0, 1, 50, 51, 52].map((i) => answer(engine, requestOf(i, options)))),
  );
  const seconds = await secondQuestion(engine, options);
  await engine.close();
  const memory = await memoryOver(options);
  const result = {
    model: options.model,
    ...speed,
    eventLoopMs: blocked.own,
    idleLoopMs: blocked.idle,
    ...seconds,
    ...memory,
  };
  process.stdout.write(
    `${options.conversations} conversations of ${speed.promptRows} rows: ${speed.tokPerS.toFixed(1)} tok/s one after another, ` +
      `${speed.tokPerSTogether.toFixed(1)} together, ${speed.speedup.toFixed(2)}x; answers ${speed.equal ? 'equal' : 'DIFFERENT'}\n` +
      `event loop blocked for at most ${blocked.own.toFixed(1)} ms (of an idle process beside it: ${blocked.idle.toFixed(1)} ms)\n` +
      `second question, first token: ${seconds.sessionFirstMs.toFixed(0)} ms in a session, ${seconds.engineFirstMs.toFixed(0)} ms in another request\n` +
      `memory: ${memory.rssMb.map((mb) => mb.toFixed(0)).join(', ')} MB\n`,
  );
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

/** Tokens per second of the requests one after another and together, in interleaved rounds. */
async function throughput(engine: Engine, requests: readonly EngineRequest[], rounds: number) {
  const [alone, together]: [number[], number[]] = [[], []];
  let equal = true;
  let promptRows = 0;
  const timed = async (work: () => Promise<Answered[]>, rates: number[]): Promise<Answered[]> => {
    const begin = performance.now();
    const answers = await work();
    const tokens = answers.reduce((sum, { end }) => sum + end.usage.generated, 0);
    rates.push(tokens / ((performance.now() - begin) / 1000));
    return answers;
  };
  for (let round = 0; round < rounds; round++) {
    const one = await timed(async () => {
      const answers: Answered[] = [];
      for (const request of requests) answers.push(await answer(engine, request));
      return answers;
    }, alone);
    const all = await timed(() => Promise.all(requests.map((request) => answer(engine, request))), together);
    equal &&= all.every(({ text }, i) => text === one[i]?.text);
    promptRows = one[0]?.end.usage.prompt ?? 0;
  }
  const [tokPerS, tokPerSTogether] = [median(alone), median(together)];
  return {
    conversations: requests.length,
    promptRows,
    equal,
    tokPerS,
    tokPerSTogether,
    speedup: tokPerSTogether / tokPerS,
  };
}

/** Time to the first token of a second question, in turn in a session of the library and in another request to the engine. */
async function secondQuestion(engine: Engine, options: Options) {
  const model = await load(options.model);
  const chat = model.session();
  const images = Array.from({ length: options.pictures }, (_, k) => scene(k));
  await chat.ask('What is at b4?', { images, maxTokens: 1, history: 'forget' });
  // Equal draws, because some tokens have no text.
  const sampling = { maxTokens: 2, temperature: 1, seed: 0 };
  const inSession: number[] = [];
  const inEngine: number[] = [];
  for (let i = 0; i < 4 * options.rounds; i++) {
    const question = `What is at c${i + 1}?`;
    const begin = performance.now();
    const pieces = chat.ask(question, { ...sampling, history: 'forget' })[Symbol.asyncIterator]();
    await pieces.next();
    inSession.push(performance.now() - begin);
    await pieces.return?.();
    const request = requestOf(0, options, question);
    inEngine.push((await answer(engine, { ...request, ...sampling })).first);
  }
  chat.dispose();
  model.dispose();
  return { sessionFirstMs: median(inSession), engineFirstMs: median(inEngine) };
}

/** The longest time in which an event loop did not run: this one's, and at the same time that of a process that does nothing. */
async function blockedDuring(work: () => Promise<unknown>): Promise<{ own: number; idle: number }> {
  const code = `const delay = require('node:perf_hooks').monitorEventLoopDelay({ resolution: 1 }); delay.enable();
    process.on('message', (what) => what === 'begin' ? (delay.reset(), process.send(0)) : process.send(delay.max / 1e6));`;
  const idle = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const ask = (what: string): Promise<number> =>
    new Promise((resolve) => {
      idle.once('message', (value) => resolve(Number(value)));
      idle.send(what);
    });
  const delay = monitorEventLoopDelay({ resolution: 1 });
  await ask('begin');
  delay.enable();
  await work();
  delay.disable();
  const found = { own: delay.max / 1e6, idle: await ask('end') };
  idle.kill();
  return found;
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
