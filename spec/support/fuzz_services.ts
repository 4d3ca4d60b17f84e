// Seeded calls of engines, providers of the AI SDK, jobs, servers and models, for the fuzzer of the public API.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as api from '../../src';
import { createSparseVila } from '../../src/ai/provider';
import { withCodes } from '../../src/options';
import * as server from '../../src/server/server';
import { scene, TINY } from './assets';
import { image, junk, type Maker, options, pick, question, type Random, signal, some } from './fuzz_values';

/** As in the index, whose dynamic import jest does not run. */
const serve = withCodes(server.serve);

/** What outlives a call. */
export interface Services {
  readonly engine: api.Engine;
  readonly provider: ReturnType<typeof createSparseVila>;
  /** A folder for saved conversations and results. */
  readonly folder: string;
  close(): Promise<void>;
}

export async function openServices(): Promise<Services> {
  const engine = await api.openEngine(TINY, { maxRunning: 4, memoryBytes: 1e7 });
  const provider = createSparseVila({ contextLength: 400, memoryBytes: 0 });
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-fuzz-'));
  const close = async (): Promise<void> => {
    await Promise.all([engine.close(), provider.close()]);
    rmSync(folder, { recursive: true });
  };
  return { engine, provider, folder, close };
}

const sparsity = (random: Random): unknown =>
  options(random, {
    method: () => pick(random, [...api.METHODS.map(({ name }) => name), 'sparsevila', 'constructor']),
    verify: () => pick(random, ['dense', 'none']),
    prefillSparsity: () => random(),
    decodeSparsity: () => random(),
    seed: () => 1,
  });

export const format = (random: Random): unknown =>
  pick<Maker>(random, [
    () => ({ type: 'json' }),
    () => ({ type: 'schema', schema: { type: 'integer' } }),
    () => ({ type: 'schema', schema: { $ref: '#' } }),
    () => ({ type: 'schema', schema: { type: 'string', pattern: '(a+)+$' } }),
    () => ({ type: 'schema', schema: junk(random) }),
    () => ({ type: junk(random) }),
  ])();

export const logitBias = (random: Random): unknown =>
  pick<unknown>(random, [{ 5: 10 }, { 5: -100, 6: 100 }, { 5: 1000 }, { '-1': 1 }, { 99999: 1 }, { x: junk(random) }]);

/** A question with a picture, or with one of the videos that are not films. */
function parts(random: Random): unknown {
  const video = (): unknown =>
    options(random, { frames: () => [image(random)], fps: () => 1, times: () => [0], file: () => 'no/such.mp4' });
  const media: Maker = () =>
    random() < 0.8 ? { kind: 'image', image: image(random) } : { kind: 'video', video: video() };
  return random() < 0.6 ? question(random) : [media(), question(random)];
}

/** A call of a model that needs no session. */
export function modelCall(random: Random, model: api.Model): () => unknown {
  const content = parts(random) as string;
  const given = { signal: () => signal(random) };
  return pick<() => unknown>(random, [
    () =>
      model.countTokens(content, options(random, { ...given, sparsity: () => sparsity(random) }) as api.CountOptions),
    () => model.tokenize(content),
    () => model.embed(content, options(random, given) as api.EmbedOptions),
    () =>
      model.frames(options(random, { file: () => scene(0), fps: () => 1 }) as never, options(random, given) as never),
    () => api.quotaFor(model, content as never, options(random, { ...given, prefillSparsity: () => 0.5 }) as never),
  ]);
}

/** A text as a name in a folder, so that no call writes elsewhere. */
const within = (folder: string, value: unknown): unknown => (typeof value === 'string' ? `${folder}/${value}` : value);

/** Saves a conversation, or continues a saved one. */
export function saved(
  random: Random,
  { folder }: Services,
  [model, session]: readonly [api.Model, api.Session],
  open: (made: api.Session) => void,
): () => unknown {
  const path = (
    random() < 0.85 ? join(folder, `${Math.floor(random() * 3)}.saved`) : within(folder, junk(random))
  ) as string;
  const given = { signal: () => signal(random) };
  if (random() < 0.5) return () => session.save(path, options(random, given, 0.05) as { signal?: AbortSignal });
  const method = random() < 0.7 ? session.method : api.sparseVila();
  const more = options(random, { ...given, method: () => method, history: () => 'keep' }, 0.05) as api.RestoreOptions;
  return async () => open(await model.restore(path, more));
}

function request(random: Random): unknown {
  const messages = (): unknown =>
    random() < 0.9
      ? [
          ...(random() < 0.2 ? [{ role: 'system', content: question(random) }] : []),
          { role: random() < 0.95 ? 'user' : junk(random), content: parts(random) },
        ]
      : junk(random);
  const made = some(
    random,
    {
      sparsity: () => sparsity(random),
      maxTokens: () => 1 + Math.floor(random() * 4),
      stop: () => ['red'],
      temperature: () => random(),
      logprobs: () => pick(random, [0, 2, 101]),
      logitBias: () => logitBias(random),
      format: () => format(random),
      cells: () => true,
    },
    0.05,
  );
  return random() < 0.97 ? { maxTokens: 3, ...made, messages: messages() } : junk(random);
}

/** A request to an engine, sometimes left before its end. */
export function engineCall(random: Random, { engine }: Services): () => unknown {
  const asked = request(random) as api.EngineRequest;
  const given = options(
    random,
    { signal: () => signal(random), transfer: () => random() < 0.5 },
    0.05,
  ) as api.RunOptions;
  const leaves = random() < 0.2;
  return pick<() => unknown>(random, [
    async () => {
      for await (const _ of engine.run(asked, given)) if (leaves) break;
    },
    () => engine.count(asked, given),
    () => engine.stats(),
    () => api.engineRunner(engine).run({ id: 'a', request: asked }, given as never),
    () => api.engineRunner(engine).run(junk(random) as never, junk(random) as never),
  ]);
}

/** A call of the AI SDK's provider, as the SDK makes it or with a wrong value. */
export function providerCall(random: Random, { provider }: Services): () => unknown {
  const name = random() < 0.8 ? TINY : junk(random);
  const own = random() < 0.6 ? undefined : options(random, { contextLength: () => 400, kv: () => 'f32' });
  const call = options(random, {
    prompt: () => [{ role: 'user', content: [{ type: 'text', text: question(random) }] }],
    maxOutputTokens: () => 2,
    temperature: () => random(),
    abortSignal: () => signal(random),
    providerOptions: () => ({ sparsevila: options(random, { sparsity: () => sparsity(random), logprobs: () => 1 }) }),
  });
  return async () => {
    const model = provider(name as string, own as api.EngineOptions);
    if (random() < 0.5) return void (await model.doGenerate(call as never));
    const { stream } = await model.doStream(call as never);
    for await (const _ of stream as unknown as AsyncIterable<unknown>);
  };
}

/** Calls whose arguments are wrong, so that no file is fetched, no address is listened at and no queue is reached. */
export function serviceCall(random: Random, { engine, folder }: Services): () => unknown {
  const wrong = options(random, { 'no such option': () => 1, signal: () => signal(random) }, 0.5) as never;
  const path = junk(random) as never;
  return pick<() => unknown>(random, [
    () => api.openEngine(path, wrong),
    () => serve((random() < 0.5 ? engine : junk(random)) as never, { ...(wrong as object), port: -1 }),
    () => serve(junk(random) as never, { port: 0 }).then((server) => server.close()),
    () => api.inspect(path, wrong),
    () => api.weightCache(),
    () => api.download(path, wrong),
    () => api.remove(path, wrong),
    () => api.openQueue(wrong),
    () => api.openWorker(junk(random) as never, wrong),
    () => api.readJobs(path),
    () => api.runBatch(junk(random) as never),
    () =>
      api.runBatch({
        ...{
          input: { hash: 'x', jobs: [], places: new Map() },
          out: join(folder, 'out'),
          concurrency: 1,
          configuration: {},
        },
        runner: api.engineRunner(engine),
        [pick(random, ['input', 'out', 'runner', 'concurrency', 'signal', 'onProgress', 'configuration'])]: within(
          folder,
          junk(random),
        ),
      } as never),
    () => api.tune(wrong),
    () => api.scheduled(api.sparseVila(), options(random, { dense: () => [0], none: () => [1] }) as never),
    () => api.scheduled(junk(random) as never, {}),
    () => api.refreshed(api.sparseVila(), options(random, { every: () => 2, rejected: () => 1 }) as never),
    () => api.refreshed(junk(random) as never, { every: 2 }),
  ]);
}
