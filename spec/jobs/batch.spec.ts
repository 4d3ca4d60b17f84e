// A file of jobs: what its lines may hold, results in order, a run that is stopped and continued, and the command with the packaged model.
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { SparseVilaError } from '../../src/errors';
import { runBatch } from '../../src/jobs/batch';
import type { JobResult, JobRunner } from '../../src/jobs/job';
import { readJobs } from '../../src/jobs/job_file';

let folder: string;
let file: string;
let out: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-batch-'));
  file = join(folder, 'in.jsonl');
  out = join(folder, 'out.jsonl');
});
afterEach(() => rmSync(folder, { recursive: true }));
const code = (expected: string) => expect.objectContaining({ code: expected });
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
const done = (id: string): JobResult => ({ id, status: 'done', text: `answer ${id}`, finish: 'stop', usage });
const write = (...lines: readonly unknown[]): void =>
  writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
const resultsOf = (): JobResult[] =>
  readFileSync(out, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as JobResult);
const batch = (runner: JobRunner, more: object = {}) =>
  runBatch({ input: readJobs(file), out, runner, configuration: { model: 'a' }, concurrency: 3, ...more });

test('both forms of a line, with paths relative to the file', () => {
  write(
    { question: 'What?', images: ['a.png', 'data:,x'], videos: ['b.mp4'], system: 'Be brief.', maxTokens: 3 },
    {
      id: 'x',
      messages: [{ role: 'user', content: ['Two:', { image: '/b.png' }, { video: { frames: ['c.png'], fps: 2 } }] }],
    },
  );
  expect(readJobs(file).jobs).toEqual([
    {
      id: '1',
      request: {
        maxTokens: 3,
        messages: [
          { role: 'system', content: 'Be brief.' },
          {
            role: 'user',
            content: [
              { kind: 'image', image: join(folder, 'a.png') },
              { kind: 'image', image: 'data:,x' },
              { kind: 'video', video: { file: join(folder, 'b.mp4') } },
              'What?',
            ],
          },
        ],
      },
    },
    {
      id: 'x',
      request: {
        messages: [
          {
            role: 'user',
            content: [
              'Two:',
              { kind: 'image', image: '/b.png' },
              { kind: 'video', video: { frames: [join(folder, 'c.png')], fps: 2 } },
            ],
          },
        ],
      },
    },
  ]);
});

test.each<[string, unknown]>([
  ['no question', { id: 'a' }],
  ['a stray key', { question: 'a', pictures: [] }],
  ['an id that is no text', { id: 1, question: 'a' }],
  ['a question besides messages', { question: 'a', messages: [] }],
  ['an unknown role', { messages: [{ role: 'tool', content: 'a' }] }],
  ['a part that is none', { messages: [{ role: 'user', content: [{ text: 'a' }] }] }],
  ['a list', [1]],
])('%s is refused with its line', (_, line) => {
  write({ question: 'a' }, line);
  expect(() => readJobs(file)).toThrow(code('ERR_JOBS'));
  expect(() => readJobs(file)).toThrow(/in\.jsonl:2/);
});

test('an id that occurs twice is refused', () => {
  write({ id: 'a', question: 'a' }, { id: 'a', question: 'b' });
  expect(() => readJobs(file)).toThrow(/in\.jsonl:2.*in\.jsonl:1/);
});

test('results have the order of the jobs whatever order they end in, and failures do not stop the others', async () => {
  write(...['0', '1', '2', '3', '4'].map((id) => ({ id, question: id })));
  let tries = 0;
  const runner: JobRunner = {
    run: async ({ id }) => {
      await new Promise((then) => setTimeout(then, 10 * (5 - Number(id))));
      if (id === '2' && ++tries < 3) throw new SparseVilaError('ERR_OUT_OF_MEMORY', 'Full.');
      if (id === '3') throw new SparseVilaError('ERR_OUT_OF_MEMORY', 'Always full.');
      return done(id);
    },
  };
  const steps: number[] = [];
  const result = await batch(runner, { onProgress: ({ done: made }: { done: number }) => steps.push(made) });
  expect(result).toEqual({ out, jobs: 5, failed: 1, continued: 0 });
  expect(steps).toEqual([0, 1, 2, 3, 4, 5]);
  expect(resultsOf()).toEqual([
    ...[done('0'), done('1'), done('2')],
    { id: '3', status: 'failed', error: { code: 'ERR_OUT_OF_MEMORY', message: `${file}:4: Always full.` } },
    done('4'),
  ]);
  expect(existsSync(`${out}.partial`)).toBe(false);
  await expect(batch(runner)).rejects.toEqual(code('ERR_OUTPUT_EXISTS'));
});

test('a stopped run continues, and only with the same jobs and model', async () => {
  write(...['0', '1', '2', '3'].map((id) => ({ id, question: id })));
  const abort = new AbortController();
  const ran: string[] = [];
  const runner: JobRunner = {
    run: async ({ id }, { signal } = {}) => {
      if (id === '2') abort.abort(new Error('enough'));
      signal?.throwIfAborted();
      ran.push(id);
      return done(id);
    },
  };
  await expect(batch(runner, { concurrency: 1, signal: abort.signal })).rejects.toThrow('enough');
  expect(ran).toEqual(['0', '1']);
  expect(existsSync(out)).toBe(false);
  await expect(batch(runner, { configuration: { model: 'b' } })).rejects.toEqual(code('ERR_RESUME_MISMATCH'));
  const again: JobRunner = {
    run: async ({ id }) => {
      ran.push(id);
      return done(id);
    },
  };
  expect(await batch(again)).toEqual({ out, jobs: 4, failed: 0, continued: 2 });
  expect(ran).toEqual(['0', '1', '2', '3']);
  expect(resultsOf().map(({ id }) => id)).toEqual(['0', '1', '2', '3']);
});

test('a runner that is gone stops the run, which can be continued', async () => {
  write(...['0', '1', '2', '3'].map((id) => ({ id, question: id })));
  let left = 2;
  const runner: JobRunner = {
    run: async ({ id }) => {
      if (left-- <= 0) throw new SparseVilaError('ERR_ENGINE_ENDED', 'Its thread was stopped.');
      return done(id);
    },
  };
  await expect(batch(runner, { concurrency: 1 })).rejects.toEqual(code('ERR_ENGINE_ENDED'));
  left = 9;
  expect(await batch(runner)).toEqual({ out, jobs: 4, failed: 0, continued: 2 });
});

test('a number of jobs that is none and a place that cannot be written are refused', async () => {
  write({ question: 'a' });
  const runner: JobRunner = { run: async ({ id }) => done(id) };
  for (const concurrency of [0, -1, 1.5, Number.NaN])
    await expect(batch(runner, { concurrency })).rejects.toEqual(code('ERR_OPTION_INVALID'));
  await expect(batch(runner, { out: '/proc/out.jsonl' })).rejects.toEqual(code('ERR_OUTPUT_UNWRITABLE'));
});

test('options that a queue cannot pass on are refused', () => {
  write({ question: 'a' });
  const cli = resolve(__dirname, '../../src/cli/main.js');
  const given = ['batch', file, out, '--redis', 'redis://127.0.0.1:1', '--kv', 'f32'];
  const { status, stderr } = spawnSync(process.execPath, [cli, ...given], { encoding: 'utf8' });
  expect([status, stderr]).toEqual([2, expect.stringMatching(/ERR_OPTION_INVALID.*kv/)]);
});

test('the command answers the packaged jobs with the packaged model, and names a picture that is missing with its line', () => {
  const cli = resolve(__dirname, '../../src/cli/main.js');
  const demo = resolve(__dirname, '../../../assets/demo');
  for (const name of readdirSync(demo)) copyFileSync(join(demo, name), join(folder, name));
  const jobs = join(folder, 'jobs.jsonl');
  appendFileSync(jobs, `${JSON.stringify({ id: 'none', question: 'What?', images: ['none.png'] })}\n`);
  expect(spawnSync(process.execPath, [cli, 'batch', jobs, out], { stdio: 'ignore', cwd: demo }).status).toBe(1);
  expect(resultsOf().map((result) => ('text' in result ? [result.id, result.text] : result))).toEqual([
    ['yellow', 'd5'],
    ['row', 'blue X, blue triangle'],
    ['follow-up', '3'],
    {
      ...{ id: 'none', status: 'failed' },
      error: {
        code: 'ERR_IMAGE_NOT_FOUND',
        message: `${jobs}:4: Expected an existing file for image "${join(folder, 'none.png')}" but there is none; check the path.`,
      },
    },
  ]);
});
