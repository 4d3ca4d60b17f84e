// Queues on Redis and on Postgres with workers that need no model: results once, cancelling, tries, a worker that is gone.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EngineRequest } from '../../src/engine/types';
import { SparseVilaError } from '../../src/errors';
import { underOwnIds } from '../../src/jobs/batch';
import type { Job, JobResult, JobRunner, RunOptions } from '../../src/jobs/job';
import { type JobQueue, openQueue } from '../../src/jobs/queue';
import { type JobWorker, openWorker } from '../../src/jobs/worker';
import { INSTALLED, postgresServer, redisServer, type Server } from '../../testing/servers';
import { startCli } from '../cli/run';

const code = (expected: string) => expect.objectContaining({ code: expected });
const request = (text: string): EngineRequest => ({ messages: [{ role: 'user', content: text }] });
const jobOf = (id: string, text = id): Job => ({ id, request: request(text) });
const usage = {
  prompt: 1,
  cached: 0,
  visualSeen: 0,
  visualKept: 0,
  generated: 1,
  visualRetrieved: 0,
  drafted: 0,
  accepted: 0,
};
const done = (id: string, text: string): JobResult => ({ id, status: 'done', text, finish: 'stop', usage });

const BACKENDS = {
  redis: { start: redisServer, hint: 'apt-get install redis-server' },
  postgres: { start: postgresServer, hint: 'apt-get install postgresql' },
};

describe.each(['redis', 'postgres'] as const)('a queue on %s', (kind) => {
  const { start, hint } = BACKENDS[kind];
  const run = INSTALLED[kind] ? test : test.skip;
  const name = (what: string): string => (INSTALLED[kind] ? what : `${what} (skipped: ${hint})`);
  let server: Server;
  let queue: JobQueue;
  let model = 0;
  const workers: JobWorker[] = [];
  const place = () => ({ [kind]: server.url, model: `model-${model}` });
  beforeAll(async () => {
    if (INSTALLED[kind]) server = await start();
  });
  afterAll(async () => await server?.stop());
  beforeEach(async () => {
    model++;
    if (INSTALLED[kind]) queue = await openQueue(place());
  });
  afterEach(async () => {
    await Promise.all(workers.splice(0).map((worker) => worker.close({ now: true })));
    await queue?.close();
  });
  const work = async (
    answer: (job: Job, options: RunOptions) => Promise<JobResult>,
    more: object = {},
  ): Promise<JobWorker> => {
    const runner: JobRunner = { run: (job, options = {}) => answer(job, options) };
    const worker = await openWorker(runner, { ...place(), ...more });
    workers.push(worker);
    return worker;
  };

  run(name('the command batch says whose workers it waits for, and ends when these have answered'), async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sparsevila-queue-'));
    const [input, out] = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')];
    writeFileSync(input, '{"id": "a", "question": "b"}\n');
    const args = ['batch', input, out, `--${kind}`, server.url, '--model-name', place().model];
    const { ended, shows } = startCli(args);
    await shows(new RegExp(`wait for workers of ${place().model}\\.`));
    await work(async ({ id }) => done(id, 'B'));
    expect(await ended).toMatchObject({ code: 0, stdout: `${out}: 1 job\n` });
    expect(JSON.parse(readFileSync(out, 'utf8'))).toEqual(done('a', 'B'));
    rmSync(folder, { recursive: true });
  });

  run(name('each of many jobs is answered once, however often it is added'), async () => {
    const ids = Array.from({ length: 120 }, (_, i) => `job ${i}`);
    const ran: string[] = [];
    const answer = async ({ id }: Job) => {
      ran.push(id);
      return done(id, id.toUpperCase());
    };
    await Promise.all([work(answer), work(answer)]);
    await queue.enqueue(ids.map((id) => jobOf(id)));
    await queue.enqueue(ids.map((id) => jobOf(id)));
    const results: JobResult[] = [];
    for await (const result of queue.results(ids)) results.push(result);
    expect(results.map(({ id }) => id).sort()).toEqual([...ids].sort());
    expect(results.find(({ id }) => id === 'job 7')).toEqual(done('job 7', 'JOB 7'));
    expect(ran.sort()).toEqual([...ids].sort());
    await queue.enqueue(jobOf('job 7'));
    expect(await queue.result('job 7')).toEqual(done('job 7', 'JOB 7'));
    expect(await queue.counts()).toEqual({ waiting: 0, active: 0, completed: 120, failed: 0 });
  });

  run(name('a wrong request fails at once; a failure of the machine is tried again'), async () => {
    let tries = 0;
    await work(async ({ id }) => {
      if (id === 'wrong')
        return { id, status: 'failed', error: { code: 'ERR_QUESTION', message: 'It is empty:\nno.' } };
      if (++tries === 1) throw new SparseVilaError('ERR_OUT_OF_MEMORY', 'Full.');
      return done(id, `try ${tries}`);
    });
    await queue.enqueue([jobOf('wrong'), jobOf('again')]);
    expect(await queue.result('wrong')).toEqual({
      ...{ id: 'wrong', status: 'failed' },
      error: { code: 'ERR_QUESTION', message: 'It is empty:\nno.' },
    });
    expect(await queue.result('again')).toEqual(done('again', 'try 2'));
    await expect(queue.result('unknown')).rejects.toEqual(code('ERR_JOB_UNKNOWN'));
  });

  run(name('running and waiting jobs are cancelled, and progress arrives'), async () => {
    const abort = new AbortController();
    await work(
      (_, { signal, onProgress }) => {
        onProgress?.({ tokens: 3 });
        return new Promise((_, fail) => signal?.addEventListener('abort', () => fail(signal.reason)));
      },
      { concurrency: 1 },
    );
    const seen: unknown[] = [];
    const started = new Promise<void>((tell) => {
      const onProgress = (progress: unknown): void => {
        seen.push(progress);
        tell();
      };
      queue.run(jobOf('first'), { signal: abort.signal, onProgress }).catch((error: unknown) => seen.push(error));
    });
    await started;
    await queue.enqueue(jobOf('second'));
    await queue.cancel('second');
    abort.abort(new Error('enough'));
    expect((await queue.result('first')).status).toBe('cancelled');
    expect((await queue.result('second')).status).toBe('cancelled');
    expect(seen).toEqual([{ tokens: 3 }, new Error('enough')]);
  });

  run(name('jobs of a worker that is closed at once are run by another'), async () => {
    const first = await work(
      (_, { signal }) =>
        new Promise<JobResult>((_, fail) => signal?.addEventListener('abort', () => fail(signal.reason))),
    );
    await queue.enqueue(jobOf('moved'));
    while (first.counts().active === 0) await new Promise((then) => setTimeout(then, 20));
    await first.close({ now: true });
    await work(async ({ id }) => done(id, 'second'));
    expect(await queue.result('moved')).toEqual(done('moved', 'second'));
  });

  run(name('a worker whose engine has ended gives its jobs back and takes no more'), async () => {
    let tries = 0;
    await work(async () => {
      tries++;
      throw new SparseVilaError('ERR_ENGINE_ENDED', 'Its thread was stopped.');
    });
    await queue.enqueue([jobOf('a'), jobOf('b')], { attempts: 1 });
    while (tries === 0) await new Promise((then) => setTimeout(then, 20));
    await work(async ({ id }) => done(id, 'second'));
    expect(await queue.result('a')).toEqual(done('a', 'second'));
    expect(await queue.result('b')).toEqual(done('b', 'second'));
  });

  run(name('runs of files with equal ids have results of their own, also after a stop'), async () => {
    const abort = new AbortController();
    const stopped = underOwnIds(queue).run(jobOf('1', 'stopped'), { signal: abort.signal });
    while ((await queue.counts()).waiting === 0) await new Promise((then) => setTimeout(then, 20));
    abort.abort(new Error('enough'));
    await expect(stopped).rejects.toThrow('enough');
    await work(async ({ id, request: { messages } }) => done(id, String(messages[0]?.content)));
    expect(await underOwnIds(queue).run(jobOf('1', 'stopped'))).toEqual(done('1', 'stopped'));
    expect(await underOwnIds(queue).run(jobOf('1', 'other'))).toEqual(done('1', 'other'));
  });

  run(name('jobs that need a device go to workers on it; a full queue waits'), async () => {
    const gpu = await openQueue({ ...place(), device: 'gpu', mostWaiting: 1 });
    await work(async ({ id }) => done(id, 'any'));
    await gpu.enqueue([jobOf('a')]);
    const second = gpu.enqueue(jobOf('b'));
    await queue.enqueue(jobOf('c'));
    expect(await queue.result('c')).toEqual(done('c', 'any'));
    expect(await gpu.counts()).toMatchObject({ waiting: 1, completed: 0 });
    await work(async ({ id }) => done(id, 'gpu'), { device: 'gpu' });
    await second;
    expect(await gpu.result('b')).toEqual(done('b', 'gpu'));
    await gpu.close();
  });

  run(name('pictures in memory travel as data URLs; pixels are refused'), async () => {
    await work(async ({ id, request: { messages } }) => done(id, JSON.stringify(messages)));
    const image = (value: unknown): Job => ({
      id: `image ${typeof value}`,
      request: { messages: [{ role: 'user', content: [{ kind: 'image', image: value as Buffer }, 'What?'] }] },
    });
    const result = await queue.run(image(Buffer.from('GIF89a')));
    expect(JSON.parse((result as { text: string }).text)[0].content[0]).toEqual({
      ...{ kind: 'image', image: 'data:application/octet-stream;base64,R0lGODlh' },
    });
    const pixels = { data: new Uint8Array(3), width: 1, height: 1, channels: 3 };
    await expect(queue.enqueue(image(pixels))).rejects.toEqual(code('ERR_OPTION_INVALID'));
  });
});

(INSTALLED.redis ? test : test.skip)('the command worker ends on SIGTERM although its server is gone', async () => {
  const server = await redisServer();
  const { child, ended, shows } = startCli(['worker', '--redis', server.url, '--model-name', 'a']);
  await shows(/takes 8 jobs at once/);
  await server.stop();
  child.kill('SIGTERM');
  expect(await ended).toMatchObject({ code: 1, stderr: expect.stringContaining('cannot be reached') });
});

test('a server that is not there, and places that are none', async () => {
  await expect(openQueue({ model: 'a' })).rejects.toEqual(code('ERR_OPTION_INVALID'));
  await expect(openQueue({ model: 'a', redis: 'http://x' })).rejects.toEqual(code('ERR_OPTION_INVALID'));
  const postgres = 'postgres://jobs@127.0.0.1:1/none';
  await expect(openQueue({ model: 'a', postgres })).rejects.toEqual(code('ERR_QUEUE_UNREACHABLE'));
});
