// The programs of examples/ on the packaged model, as a reader runs them, and their types.

import { execFile, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from './cli/run';

const EXAMPLES = join(ROOT, 'examples');
const programs = readdirSync(EXAMPLES).filter((name) => name.endsWith('.mjs'));
const run = promisify(execFile);

const output = async (name: string): Promise<string> =>
  (await run(process.execPath, [join(EXAMPLES, name)], { encoding: 'utf8' })).stdout;

test.each(programs)('%s has at most 40 lines', (name) => {
  expect(readFileSync(join(EXAMPLES, name), 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(40);
});

test('they pass the type checker', async () => {
  const tsc = run(join(ROOT, 'node_modules/.bin/tsc'), ['-p', EXAMPLES], { encoding: 'utf8' });
  expect(await tsc.catch((error) => error)).toMatchObject({ stdout: '' });
});

test('conversation.mjs: streams, remembers the picture, and forgets a turn', async () => {
  expect(await output('conversation.mjs')).toBe(
    ['d5', '  attended 10 of 100 visual tokens', 'blue X, blue triangle', '3', ''].join('\n'),
  );
});

test('film.mjs: seconds of a film, and the whole of it', async () => {
  expect(await output('film.mjs')).toBe(
    [
      ...['second 0: yellow A', 'second 1: blue X, blue triangle', 'second 2: white V'],
      ...[1, 2, 3].map((frame) => `decoded ${frame} of 3 frames`),
      ...['attended 30 of 300 visual tokens', ''],
    ].join('\n'),
  );
});

test('method.mjs: a method of its own beside dense and SparseVILA', async () => {
  expect(await output('method.mjs')).toBe(
    [
      'dense: d5 (100 tokens attended)',
      'sparsevila: d5 (10 tokens attended)',
      'center: d5 (25 tokens attended)',
      '',
    ].join('\n'),
  );
});

test('worker.mjs answers several HTTP requests at a time, and reports errors', async () => {
  const server = spawn(process.execPath, [join(EXAMPLES, 'worker.mjs'), '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const address = await new Promise<string>((done, fail) => {
      server.stdout.setEncoding('utf8').once('data', (line: string) => done(line.trim()));
      server.once('exit', (code) => fail(new Error(`worker.mjs ended with ${code}`)));
    });
    const ask = (q: string) => fetch(`${address}/?${new URLSearchParams({ q })}`);
    const questions = ['Where is the yellow 2?', 'Read row 7.', ''];
    const answers = await Promise.all(questions.map(ask));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 400]);
    expect(await Promise.all(answers.map((answer) => answer.text()))).toEqual([
      'd5',
      'blue X, blue triangle',
      expect.stringContaining('question'),
    ]);
  } finally {
    server.kill('SIGKILL');
  }
});
