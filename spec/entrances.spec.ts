// Every entrance of the public API that takes another object (an engine, a runner, a file of jobs) or a path refuses what it cannot use,
// by name and before any work. The fuzzer (api_fuzz.spec.ts) calls all of them with far more values.

import * as api from '../src';
import { createSparseVila } from '../src/ai/provider';
import { serve } from '../src/server/server';
import { errorOf } from './image/fixtures';
import { TINY } from './support/assets';

let model: api.Model;
beforeAll(async () => {
  model = await api.load(TINY);
});
afterAll(() => model.dispose());

const none = undefined as never;
const runner: api.JobRunner = { run: () => Promise.reject(new Error('not called')) };
const engine = { run: () => none, count: () => none, stats: () => none } as unknown as api.Engine;
const noJobs = { hash: 'x', jobs: [], places: new Map() };
const batch = { input: noJobs, out: '/nowhere/x', runner, configuration: {}, concurrency: 1 };
const call = { prompt: 7, abortSignal: undefined } as never;

it.each<[string, () => unknown, string, RegExp]>([
  ['serve without an engine', () => serve(none), 'ERR_OPTION_INVALID', /an engine.*received undefined/],
  ['engineRunner without an engine', () => api.engineRunner(none), 'ERR_OPTION_INVALID', /an engine.*undefined/],
  ['a job without an id', () => api.engineRunner(engine).run({ request: {} } as never), 'ERR_OPTION_MISSING', /for id/],
  ['a job that is none', () => api.engineRunner(engine).run(7 as never), 'ERR_OPTION_INVALID', /job: expected/],
  ['openWorker without a runner', () => api.openWorker(none, { model: 'm' }), 'ERR_OPTION_INVALID', /a runner of jobs/],
  ['runBatch without options', () => api.runBatch(none), 'ERR_OPTION_MISSING', /a file of jobs.*for input/],
  ['runBatch of a path', () => api.runBatch({ ...batch, input: 'x' as never }), 'ERR_OPTION_INVALID', /for input/],
  ['runBatch into no file', () => api.runBatch({ ...batch, out: 7 as never }), 'ERR_OPTION_INVALID', /for out/],
  [
    'an unknown option of runBatch',
    () => api.runBatch({ ...batch, output: 'x' } as never),
    'ERR_OPTION_INVALID',
    /output/,
  ],
  ['readJobs without a path', () => api.readJobs(none), 'ERR_OPTION_INVALID', /for file/],
  ['openEngine without a model', () => api.openEngine(none), 'ERR_OPTION_INVALID', /openEngine.*for model/],
  [
    'weights of openEngine',
    () => api.openEngine(TINY, { weights: 'f8' as never }),
    'ERR_OPTION_INVALID',
    /for weights/,
  ],
  ['options of a provider', () => createSparseVila({ kw: 'f32' } as never), 'ERR_OPTION_INVALID', /Did you mean kv/],
  ['options of its model', () => createSparseVila()(TINY, { kv: 'f8' as never }), 'ERR_OPTION_INVALID', /for kv/],
  [
    'what is no call of the AI SDK',
    () => createSparseVila()(TINY).doGenerate(call),
    'ERR_OPTION_INVALID',
    /as the AI SDK/,
  ],
  ['restore with a list', () => model.restore('x', [] as never), 'ERR_OPTION_INVALID', /restore: expected/],
  ['restore with kv', () => model.restore('x', { kv: 'f32' } as never), 'ERR_OPTION_INVALID', /received kv/],
  ['a saved file with NUL in its name', () => model.session().save('a\0b'), 'ERR_OUTPUT_UNWRITABLE', /a NUL character/],
])('%s is refused', async (_name, attempt, code, message) => {
  const error = await errorOf(attempt);
  expect(error.code).toBe(code);
  expect(error.message).toMatch(message);
});

it('the options of a question to an engine are checked, and what cannot be read is refused', async () => {
  const own = await api.openEngine(TINY, { memoryBytes: 0 });
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const ask = (content: unknown, options: unknown) => async (): Promise<unknown> =>
    own.run({ messages: [{ role: 'user', content: content as string }] }, options as never).next();
  expect((await errorOf(ask('x', { signl: 1 }))).message).toContain('Did you mean signal');
  expect((await errorOf(ask('x', null))).code).toBe('ERR_OPTION_INVALID');
  expect((await errorOf(ask([{ kind: 'image', image: proxy }, 'x'], undefined))).code).toBe('ERR_OPTION_INVALID');
  const thrower = {
    kind: 'image',
    get image(): never {
      throw new Error('called');
    },
  };
  expect((await errorOf(ask([thrower, 'x'], undefined))).code).toBe('ERR_QUESTION');
  expect((await errorOf(() => own.count({ messages: [] }, 7 as never))).code).toBe('ERR_OPTION_INVALID');
  await own.close();
});
