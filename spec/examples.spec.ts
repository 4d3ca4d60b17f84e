// The programs of examples/ on the packaged model, as a reader runs them, and their types.

import { execFile, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { PACKAGED_PICTURE } from '../src';
import { ROOT } from './cli/run';

const EXAMPLES = join(ROOT, 'examples');
const programs = readdirSync(EXAMPLES).filter((name) => name.endsWith('.mjs'));
const run = promisify(execFile);

const output = async (name: string): Promise<string> =>
  (await run(process.execPath, [join(EXAMPLES, name)], { encoding: 'utf8' })).stdout;

test.each(programs)('%s has at most 40 lines', (name) => {
  expect(readFileSync(join(EXAMPLES, name), 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(40);
});

test.each(programs)('%s can be copied to any folder: it names no file beside it', (name) => {
  expect(readFileSync(join(EXAMPLES, name), 'utf8')).not.toMatch(/['"`]\.\.?\//);
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
      ...['whole film: d5', 'attended 30 of 300 visual tokens', ''],
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

test('the steps of the Dockerfile are those of README, and its server is a command', async () => {
  const [docker, readme] = [join(EXAMPLES, 'Dockerfile'), join(ROOT, 'README.md')].map((file) =>
    readFileSync(file, 'utf8'),
  );
  const packages = /--no-install-recommends (.*?) &&/.exec(docker ?? '')?.[1] ?? 'none';
  expect(readme).toContain(`apt install ${packages}`);
  for (const step of ['npm install sparsevila', 'npx sparsevila setup'])
    expect([docker, readme]).toEqual([expect.stringContaining(step), expect.stringContaining(step)]);
  const [program = '', ...serve] = JSON.parse(/^ENTRYPOINT (.*)$/m.exec(docker ?? '')?.[1] ?? '[]') as string[];
  expect(program).toBe('node_modules/.bin/sparsevila');
  const help = await run(process.execPath, [join(ROOT, 'dist/src/cli/main.js'), ...serve, '--help'], {
    encoding: 'utf8',
  });
  expect(help.stdout).toContain('--host');
});

test('stream.mjs has ten lines at most, and streams', async () => {
  expect(readFileSync(join(EXAMPLES, 'stream.mjs'), 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(10);
  expect(await output('stream.mjs')).toBe('d5\n');
});

test('json.mjs: an answer of a schema', async () => {
  expect(await output('json.mjs')).toMatch(
    /^\d{1,2} shapes, [0-3] colors, at [a-j]([1-9]|10)\nleast likely token: ".*"\n$/,
  );
});

test('ai_sdk.mjs: text, a stream and an object through the AI SDK', async () => {
  const [first, second, third] = (await output('ai_sdk.mjs')).split('\n');
  expect([first, second]).toEqual(['d5 (56 tokens in, 2 out)', 'blue X, blue triangle']);
  expect(third).toMatch(/^[a-j]([1-9]|10)$/);
});

test('http.mjs answers a picture in a form or as the body, and reports errors', async () => {
  const server = spawn(process.execPath, [join(EXAMPLES, 'http.mjs'), '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const address = await new Promise<string>((done, fail) => {
      server.stdout.setEncoding('utf8').once('data', (line: string) => done(line.trim()));
      server.once('exit', (code) => fail(new Error(`http.mjs ended with ${code}`)));
    });
    const picture = new Blob([readFileSync(PACKAGED_PICTURE)], { type: 'image/png' });
    const form = new FormData();
    form.set('picture', picture, 'scene.png');
    const ask = async (q: string, body: FormData | Blob) => {
      const answer = await fetch(`${address}/?${new URLSearchParams({ q })}`, { method: 'POST', body });
      return [answer.status, await answer.text()];
    };
    const where = 'Where is the yellow 2?';
    expect(await Promise.all([ask(where, form), ask(where, picture)])).toEqual([
      [200, 'd5'],
      [200, 'd5'],
    ]);
    expect(await ask(where, new FormData())).toEqual([400, expect.stringContaining('picture')]);
    expect(await ask('', picture)).toEqual([400, expect.stringContaining('question')]);
    const ended = new Promise((done) => server.once('exit', done));
    server.kill('SIGTERM');
    expect(await ended).toBe(0);
  } finally {
    server.kill('SIGKILL');
  }
}, 60_000);

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
