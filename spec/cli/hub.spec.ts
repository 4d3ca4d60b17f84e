// `download`, `list` and `remove`, and a model by name in other commands, as a user starts them: against a stand-in of the Hub.

import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { scene } from '../support/assets';
import type { Hub } from '../support/hub';
import { BYTES, expectWhole, isWeights, NAME, type Scratch, scratchHub } from '../support/hub_model';
import { type Ended, MAIN, ROOT, type Running, startCli } from './run';

let scratch: Scratch;
let hub: Hub;
beforeEach(async () => {
  scratch = await scratchHub();
  ({ hub } = scratch);
});
afterEach(() => scratch.remove());

const environment = (): NodeJS.ProcessEnv => ({
  ...{ HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: scratch.cache, HF_HUB_OFFLINE: '0', HF_TOKEN: 'hf_secretsecret' },
});

const start = (...args: string[]): Running => startCli(args, MAIN, ROOT, environment());
const run = (...args: string[]): Promise<Ended> => start(...args).ended;

test('download prints the folder, and progress in a few lines without a terminal; list and remove', async () => {
  const downloaded = await run('download', NAME);
  const folder = downloaded.stdout.trim();
  expect([downloaded.code, downloaded.stdout]).toEqual([0, `${folder}\n`]);
  expectWhole(folder);
  const lines = downloaded.stderr.trim().split('\n');
  expect(lines.length).toBeLessThan(12);
  expect(lines.every((line) => /^download lab\/tiny-nvila: \d+ % \(\d of 8 MB\)$/.test(line))).toBe(true);
  expect(lines.at(-1)).toBe(`download ${NAME}: 100 % (8 of 8 MB)`);

  const again = await run('download', NAME, '--json');
  expect(JSON.parse(again.stdout)).toEqual({ name: NAME, folder, commit: hub.commit, fetched: 0 });
  expect(again.stderr).toBe('');

  hub.forget();
  expect((await run('list')).stdout).toBe(`${NAME}  main  ${hub.commit.slice(0, 8)}  8.4 MB  whole\n`);
  expect(JSON.parse((await run('list', '--json')).stdout)).toMatchObject([
    { name: NAME, revisions: [{ bytes: BYTES }] },
  ]);
  const removed = await run('remove', NAME, '--json');
  expect(JSON.parse(removed.stdout)).toMatchObject({ name: NAME, commits: [hub.commit] });
  expect(existsSync(folder)).toBe(false);
  expect((await run('list')).stdout).toBe('No models in the cache.\n');
  expect(hub.requests).toEqual([]);
});

test('run by name downloads, then answers; a second time it makes no request', async () => {
  const command = ['run', NAME, 'What is at b4?', scene(0), '--method', 'dense'];
  const first = await run(...command);
  expect([first.code, first.stdout.trim()]).toEqual([0, 'red F']);
  expect(first.stderr).toMatch(/download lab\/tiny-nvila: 100 %/);
  hub.forget();
  const second = await run(...command, '--quiet');
  expect([second.code, second.stdout.trim(), second.stderr]).toEqual([0, 'red F', '']);
  expect(hub.requests).toEqual([]);
});

test('inspect by name leaves nothing behind', async () => {
  const folder = `${scratch.cache}-tmp`;
  mkdirSync(folder);
  const { code, stdout } = await startCli(['inspect', NAME], MAIN, ROOT, { ...environment(), TMPDIR: folder }).ended;
  expect([code, stdout]).toEqual([0, expect.stringMatching(/^lab\/tiny-nvila: /)]);
  expect([readdirSync(folder), existsSync(scratch.cache)]).toEqual([[], false]);
});

test('quantize and evaluate take a name', async () => {
  const evaluated = await run(
    'evaluate',
    '--model',
    NAME,
    '--scenes',
    '1',
    '--turns',
    '1',
    '--methods',
    'dense',
    '--ratios',
    '0/0',
    '--out',
    `${scratch.cache}-out`,
    '--json',
  );
  expect([evaluated.code, JSON.parse(evaluated.stdout)]).toEqual([0, expect.objectContaining({ scenes: 1 })]);
  const converted = await run('convert', '--model', NAME, '--out', `${scratch.cache}-f16`, '--dtype', 'f16');
  expect([converted.code, converted.stdout]).toEqual([0, expect.stringContaining('verified')]);
});

test.each([
  [['download', 'name'], 2, /expected owner\/name/],
  [['download'], 2, /name/],
  [['remove', 'lab/none'], 1, /ERR_MODEL_MISSING: lab\/none/],
  [['download', 'lab/none'], 1, /ERR_HUB_NOT_FOUND: lab\/none/],
  [['ask', '-m', 'lab/none', '-q', 'x'], 1, /ERR_HUB_NOT_FOUND: lab\/none: there is no folder of this name here/],
])('%j ends with %d and one line', async (args, code, message) => {
  const ended = await run(...args);
  expect([ended.code, ended.stdout]).toEqual([code, '']);
  expect(ended.stderr).toMatch(message);
  expect(ended.stderr.trim().split('\n')).toHaveLength(1);
  expect(ended.stderr).not.toContain('secret');
});

test('Ctrl-C keeps the downloaded bytes', async () => {
  hub.misbehave((seen) => (isWeights(seen) ? { piece: 50_000, pauseMs: 30 } : undefined));
  const { child, ended, shows } = start('download', NAME);
  await shows(/download/);
  while (!existsSync(scratch.partial)) await new Promise((done) => setTimeout(done, 20));
  child.kill('SIGINT');
  const { code, stderr } = await ended;
  expect([code, stderr]).toEqual([130, expect.stringContaining('The same command continues where it was.')]);
  hub.misbehave(() => undefined);
  expect((await run('download', NAME)).code).toBe(0);
});
