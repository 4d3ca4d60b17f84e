// The public API by name: load, download, list and remove, in this process and in several.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { download, list, load, remove, type SparseVilaError } from '../../src';
import { scene, TINY } from '../support/assets';
import type { Hub } from '../support/hub';
import { BYTES, expectWhole, failure, isWeights, NAME, type Scratch, scratchHub } from '../support/hub_model';

const INDEX = join(__dirname, '../../src/index.js');
const BY_NAME = join(__dirname, '../../src/models/by_name.js');

let scratch: Scratch;
let hub: Hub;
let before: NodeJS.ProcessEnv;
beforeEach(async () => {
  scratch = await scratchHub();
  ({ hub } = scratch);
  before = { ...process.env };
  Object.assign(process.env, environment());
});
afterEach(async () => {
  for (const name of Object.keys(environment())) delete process.env[name];
  Object.assign(process.env, before);
  await scratch.remove();
});

const environment = () => ({ HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: scratch.cache, HF_HUB_OFFLINE: '0' });

interface Child {
  readonly child: ChildProcess;
  /** What the program's `work` returned; undefined when it was killed. */
  readonly ended: Promise<unknown>;
}

/** Runs `work`, an expression, in a process of its own. */
function inChild(work: string, cwd = dirname(scratch.cache)): Child {
  const program = `const { download, list } = require(${JSON.stringify(INDEX)});
    const { checkpointFolder } = require(${JSON.stringify(BY_NAME)});
    Promise.resolve(${work}).then((value) => console.log(JSON.stringify(value)));`;
  const child = spawn(process.execPath, ['-e', program], { cwd, env: { ...process.env, ...environment() } });
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
  });
  child.stderr?.pipe(process.stderr);
  const ended = new Promise<unknown>((done, fail) => {
    child.once('error', fail);
    child.once('close', () => done(text === '' ? undefined : JSON.parse(text)));
  });
  return { child, ended };
}

test('a model loaded by name answers as its folder; the second load makes no request', async () => {
  const answers: string[] = [];
  const steps = new Set<string>();
  for (const name of [NAME, `${NAME}@main`, TINY]) {
    const model = await load(name, { onProgress: ({ step }) => steps.add(step) });
    using chat = model.session();
    answers.push(await chat.ask('What is at b4?', { images: [scene(0)] }).text());
    chat.dispose();
    model.dispose();
    if (name === NAME) hub.forget();
  }
  expect(answers).toEqual(['red F', 'red F', 'red F']);
  expect(hub.requests).toEqual([]);
  expect([...steps]).toEqual([`download ${NAME}`, 'load weights']);
});

test('an existing folder takes precedence over a name, and a path is never requested', async () => {
  const folder = dirname(scratch.cache);
  mkdirSync(join(folder, 'lab'));
  symlinkSync(TINY, join(folder, NAME));
  expect(await inChild(`checkpointFolder('${NAME}')`).ended).toBe(NAME);
  rmSync(join(folder, 'lab'), { recursive: true });
  for (const path of [`./${NAME}`, join(folder, NAME), 'lab', 'a/b/c'])
    await expect(load(path)).rejects.toEqual(failure('ERR_MODEL_MISSING', /no folder|nothing there/));
  await expect(load(TINY, { revision: 'v1' })).rejects.toEqual(failure('ERR_OPTION_INVALID', /with a Hub name only/));
  await expect(load(NAME, { revision: '../x' })).rejects.toEqual(failure('ERR_OPTION_INVALID', /revision/));
  expect(hub.requests).toEqual([]);
});

test('offline, and not in the cache', async () => {
  process.env.HF_HUB_OFFLINE = '1';
  const { code, message } = (await load(NAME).catch((error: unknown) => error)) as SparseVilaError;
  expect([code, message]).toEqual(['ERR_HUB_OFFLINE', expect.stringContaining(scratch.cache)]);
  expect(hub.requests).toEqual([]);
});

test('download, list, remove', async () => {
  expect(await list()).toEqual([]);
  const { folder, ...downloaded } = await download(`${NAME}@v1`);
  expect(downloaded).toEqual({ name: NAME, commit: hub.commit, fetched: BYTES });
  expectWhole(folder);
  expect((await download(NAME)).fetched).toBe(0);
  const [stored, ...others] = await list();
  expect(others).toEqual([]);
  expect(stored).toMatchObject({
    name: NAME,
    revisions: [{ commit: hub.commit, revisions: ['main', 'v1'], folder, bytes: BYTES, state: 'whole' }],
  });
  expect(stored?.bytes).toBeGreaterThan(BYTES);
  await expect(remove(NAME, { revision: 'v2' })).rejects.toEqual(failure('ERR_MODEL_MISSING', /v2/));
  expect(await remove(NAME)).toEqual({ name: NAME, commits: [hub.commit], bytes: stored?.bytes });
  expect([await list(), readdirSync(scratch.cache)]).toEqual([[], ['.locks']]);
  await expect(remove(NAME)).rejects.toEqual(failure('ERR_MODEL_MISSING', /found nothing/));
});

test('removing one of two revisions keeps the files of the other', async () => {
  const { folder } = await download(NAME);
  const other = join(scratch.repository, 'snapshots', 'b'.repeat(40));
  mkdirSync(other);
  const [config = ''] = readdirSync(join(scratch.repository, 'blobs')).filter((name) => name.length === 40);
  const own = join(scratch.repository, 'blobs', 'own');
  writeFileSync(own, 'seven77');
  symlinkSync(`../../blobs/${config}`, join(other, 'generation_config.json'));
  symlinkSync('../../blobs/own', join(other, 'chat_template.jinja'));
  expect((await list())[0]?.revisions.map(({ state }) => state).sort()).toEqual(['partial', 'whole']);
  expect(await remove(`${NAME}@${'b'.repeat(40)}`)).toEqual({ name: NAME, commits: ['b'.repeat(40)], bytes: 7 });
  expect([existsSync(other), existsSync(own)]).toEqual([false, false]);
  expectWhole(folder);
});

test.each([
  [() => download('name'), /owner\/name/],
  [() => download(7 as never), /owner\/name.*received 7/],
  [() => download(NAME, { revision: 'a b' }), /revision/],
  [() => download(NAME, { force: true } as never), /only the options/],
  [() => remove('../x'), /owner\/name/],
  [() => remove(NAME, { all: true } as never), /only the options/],
])('%s is refused', async (call, message) => {
  await expect(call()).rejects.toEqual(failure('ERR_OPTION_INVALID', message));
  expect(hub.requests).toEqual([]);
});

test('two concurrent processes download once, and the waiting one reports the progress of the other', async () => {
  hub.misbehave((seen) => (isWeights(seen) ? { piece: 400_000, pauseMs: 100 } : undefined));
  const work = `(async () => { const seen = []; const { folder, fetched } =
    await download('${NAME}', { onProgress: ({ done }) => seen.push(done) }); return { folder, fetched, last: seen.at(-1) }; })()`;
  const both = (await Promise.all([inChild(work).ended, inChild(work).ended])) as {
    folder: string;
    fetched: number;
    last: number;
  }[];
  expect(both.map(({ fetched }) => fetched).sort((a, b) => a - b)).toEqual([0, BYTES]);
  expect(both.every(({ last }) => last > BYTES / 2)).toBe(true);
  const files = hub.requests.filter(({ path, server }) => server === 'cdn' || path.includes('/resolve/'));
  expect(new Set(files.map(({ path }) => path)).size).toBe(files.length);
  expectWhole(both[0]?.folder ?? '');
});

test('after kill -9 the next process continues, without the lock of the dead one', async () => {
  hub.misbehave((seen) => (isWeights(seen) ? { piece: 100_000, pauseMs: 30 } : undefined));
  const { child, ended } = inChild(`download('${NAME}')`);
  const size = (): number => (existsSync(scratch.partial) ? statSync(scratch.partial).size : 0);
  while (size() < 500_000) await new Promise((done) => setTimeout(done, 20));
  child.kill('SIGKILL');
  expect(await ended).toBeUndefined();
  expect((await list())[0]?.revisions.map(({ state }) => state) ?? []).not.toContain('whole');
  const left = size();
  hub.misbehave(() => undefined);
  hub.forget();
  const { folder, fetched } = await download(NAME);
  expectWhole(folder);
  expect(fetched).toBeLessThanOrEqual(BYTES - left);
  expect(hub.requests.filter(isWeights).map(({ range }) => range)).toEqual([`bytes=${left}-`]);
});
