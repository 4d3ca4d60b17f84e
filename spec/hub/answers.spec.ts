// Erroneous and hostile responses of the Hub, the token, and models that are refused before their weights are fetched.

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Snapshot, snapshot } from '../../src/hub/snapshot';
import { NEEDS } from '../../src/models/by_name';
import { TINY } from '../support/assets';
import { entryOf, type Fault, filesOfFolder, type Hub, type Seen, startHub } from '../support/hub';
import {
  expectWhole,
  FILES,
  failure,
  type Given,
  isWeights,
  NAME,
  OWN,
  type Scratch,
  scratchHub,
  WEIGHTS,
  weights,
} from '../support/hub_model';

let scratch: Scratch;
let hub: Hub;
let cache: string;
let repository: string;
let partial: string;
const fetchModel = (given?: Given): Promise<Snapshot> => scratch.fetchModel(given);
beforeEach(async () => {
  scratch = await scratchHub();
  ({ hub, cache, repository, partial } = scratch);
});
afterEach(() => scratch.remove());

describe('responses with errors', () => {
  const cases: readonly [string, Fault & { status: number }, string, RegExp][] = [
    [
      'gated',
      { status: 403, headers: { 'x-error-code': 'GatedRepo' } },
      'ERR_HUB_ACCESS',
      /gated.*Accept its conditions at http.*HF_TOKEN/,
    ],
    ['401', { status: 401 }, 'ERR_HUB_ACCESS', /no token was sent.*HF_TOKEN/],
    [
      '401 of a model that is not there',
      { status: 401, headers: { 'x-error-code': 'RepoNotFound' } },
      'ERR_HUB_NOT_FOUND',
      /private/,
    ],
    ['404', { status: 404 }, 'ERR_HUB_NOT_FOUND', /no folder of this name here/],
    ['400', { status: 400 }, 'ERR_HUB_RESPONSE', /answered 400/],
    ['429', { status: 429 }, 'ERR_HUB_RATE_LIMIT', /HF_TOKEN/],
    ['503', { status: 503 }, 'ERR_HUB_UNREACHABLE', /answered 503/],
    ['no JSON', { status: 200, body: '<html>Welcome to the hotel' }, 'ERR_HUB_RESPONSE', /expected JSON/],
    ['no commit', { status: 200, body: '{"sha":"../../x"}' }, 'ERR_HUB_RESPONSE', /40 hex digits/],
    [
      'a redirect in a circle',
      { status: 302, headers: { location: '/circle' } },
      'ERR_HUB_RESPONSE',
      /more than 8 times/,
    ],
    [
      'a redirect to a file',
      { status: 302, headers: { location: 'file:///etc/passwd' } },
      'ERR_HUB_RESPONSE',
      /redirects to/,
    ],
    ['304', { status: 304 }, 'ERR_HUB_RESPONSE', /304/],
  ];
  test.each(cases)('%s', async (_, fault, code, message) => {
    hub.misbehave(() => fault);
    await expect(fetchModel()).rejects.toEqual(failure(code, message));
    expect(existsSync(repository)).toBe(false);
  });

  test('no such revision', async () => {
    await expect(fetchModel({ revision: 'v9' })).rejects.toEqual(failure('ERR_HUB_NOT_FOUND', /no revision v9/));
  });

  test('429 and 503 are repeated after the requested pause', async () => {
    const later = new Date(Date.now() + 2000).toUTCString();
    hub.misbehave((seen, count) => {
      if (count > 1) return undefined;
      if (seen.path.includes('/revision/')) return { status: 429, headers: { 'retry-after': '1' } };
      return isWeights(seen) ? { status: 503, headers: { 'retry-after': later } } : undefined;
    });
    const begin = performance.now();
    expectWhole((await fetchModel()).folder);
    expect(performance.now() - begin).toBeGreaterThan(1000);
  });

  test('429 with what the Hub says of its limit', async () => {
    const headers = { ratelimit: '"api";r=0;t=1' };
    hub.misbehave((seen, count) =>
      count === 1 && seen.path.includes('/revision/') ? { status: 429, headers } : undefined,
    );
    const begin = performance.now();
    expectWhole((await fetchModel()).folder);
    expect(performance.now() - begin).toBeGreaterThan(990);
  });

  test('but not if the pause is an hour', async () => {
    hub.misbehave(() => ({ status: 429, headers: { 'retry-after': '3600' } }));
    await expect(fetchModel()).rejects.toEqual(failure('ERR_HUB_RATE_LIMIT', /429/));
    expect(hub.requests).toHaveLength(1);
  });

  test('a renamed model is found at its new name', async () => {
    hub.misbehave(({ path }) =>
      path.includes('old/name') ? { status: 307, headers: { location: path.replace('old/name', NAME) } } : undefined,
    );
    expectWhole((await fetchModel({ name: 'old/name' })).folder);
  });
});

describe('the token', () => {
  const TOKEN = 'hf_secretsecret';
  const token = (): string => TOKEN;

  test('goes to the endpoint and nowhere else', async () => {
    await fetchModel({ token });
    const of = (server: Seen['server']): Set<string | undefined> =>
      new Set(hub.requests.filter((seen) => seen.server === server).map(({ authorization }) => authorization));
    expect(of('hub')).toEqual(new Set([`Bearer ${TOKEN}`]));
    expect(of('cdn')).toEqual(new Set([undefined]));
  });

  test('does not follow a link in a list of files to another host', async () => {
    hub.withoutBlobs();
    const other = await startHub(NAME, FILES);
    const link = `<${other.endpoint}/api/models/${NAME}/tree/${hub.commit}?cursor=1>; rel="next"`;
    hub.misbehave(({ path }) =>
      path.includes('/tree/') && !path.includes('cursor')
        ? {
            status: 200,
            headers: { link },
            body: JSON.stringify([entryOf('config.json', FILES['config.json'] as Buffer)]),
          }
        : undefined,
    );
    await fetchModel({ token });
    expect(other.requests).toEqual([]);
    await other.close();
  });

  test.each([401, 403, 404, 429, 500])('is not in any message (%d)', async (status) => {
    hub.misbehave(() => ({ status, headers: { 'retry-after': '999' } }));
    const error = await fetchModel({ token }).catch((thrown: unknown) => thrown);
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(TOKEN);
  });

  test('nor is the signature of a redirect', async () => {
    hub.misbehave(({ server }) => (server === 'cdn' ? { status: 400 } : undefined));
    const error = await fetchModel({ token }).catch((thrown: unknown) => thrown);
    expect(String(error)).toMatch(/blobs\/[0-9a-f]{64} answered 400/);
    expect(String(error)).not.toContain('signature');
  });
});

describe.each(['siblings', 'tree'])('hostile answers (%s)', (kind) => {
  beforeEach(() => {
    if (kind === 'tree') hub.withoutBlobs();
  });

  const config = FILES['config.json'] as Buffer;
  const right = OWN.map((path) => entryOf(path, FILES[path] as Buffer));

  test.each([
    '/etc/passwd',
    '../../x/config.json',
    'llm/../../config.json',
    'C:/config.json',
    '..\\config.json',
    '\\\\host\\x',
  ])('a list with %s is refused before anything is written', async (path) => {
    hub.list([...right, { ...entryOf('config.json', config), path }]);
    await expect(fetchModel()).rejects.toEqual(failure('ERR_PATH_OUTSIDE', /Nothing was written/));
    expect(existsSync(cache)).toBe(false);
  });

  test.each([{ size: -1 }, { size: 1e300 }, { size: '12' }, { oid: '../../x' }, { oid: 'A'.repeat(40) }, { path: 7 }])(
    'an entry with %j is refused',
    async (changed) => {
      hub.list([...right, { ...entryOf('generation_config.json', config), ...changed }]);
      await expect(fetchModel()).rejects.toEqual(failure('ERR_HUB_RESPONSE', /it lists|expected/));
    },
  );

  test('a file of a petabyte: disk space is checked first', async () => {
    const large = {
      type: 'file',
      path: WEIGHTS,
      size: 120,
      oid: 'a'.repeat(40),
      lfs: { oid: 'b'.repeat(64), size: 1e15 },
    };
    hub.list([...right.filter(({ path }) => path !== WEIGHTS), large]);
    await expect(fetchModel()).rejects.toEqual(failure('ERR_DISK_FULL', /1000000\.\d GB free.*HF_HUB_CACHE/));
    expect(hub.requests.filter(({ server }) => server === 'cdn')).toEqual([]);
  });

  test('an index of weights that leads out of the folder, or names missing files', async () => {
    for (const [shard, code] of [
      ['../../../x.safetensors', 'ERR_CHECKPOINT_INVALID'],
      ['model-00002-of-00002.safetensors', 'ERR_HUB_NOT_FOUND'],
    ] as const) {
      const { [WEIGHTS]: _, ...others } = FILES;
      const index = JSON.stringify({ weight_map: { 'model.norm.weight': shard } });
      const other = await startHub(NAME, { ...others, 'llm/model.safetensors.index.json': Buffer.from(index) });
      const settings = other.settings(`${cache}-${code}`);
      await expect(snapshot({ name: NAME }, { needs: NEEDS, settings })).rejects.toEqual(failure(code, /shard|names/));
      await other.close();
    }
  });

  test('links in the cache are not followed for writing', async () => {
    const victim = join(dirname(cache), 'victim');
    writeFileSync(victim, 'precious');
    mkdirSync(dirname(partial), { recursive: true });
    symlinkSync(victim, partial);
    await expect(fetchModel()).rejects.toEqual(failure('ERR_OUTPUT_UNWRITABLE', /link/));
    rmSync(partial);
    const outside = join(dirname(cache), 'outside');
    mkdirSync(outside);
    mkdirSync(join(repository, 'snapshots', hub.commit), { recursive: true });
    rmSync(join(repository, 'snapshots', hub.commit, 'llm'), { recursive: true, force: true });
    symlinkSync(outside, join(repository, 'snapshots', hub.commit, 'llm'));
    await expect(fetchModel()).rejects.toEqual(failure('ERR_PATH_OUTSIDE', /leads out/));
    rmSync(join(repository, 'snapshots', hub.commit, 'llm'));
    for (const below of ['refs/main', `trees/${hub.commit}.sparsevila.json`, `snapshots/${hub.commit}/config.json`]) {
      const link = join(repository, below);
      mkdirSync(dirname(link), { recursive: true });
      rmSync(link, { force: true });
      symlinkSync(victim, link);
    }
    expectWhole((await fetchModel()).folder);
    expect([readFileSync(victim, 'utf8'), readdirSync(outside)]).toEqual(['precious', []]);
  });
});

test.each([
  [{ 'config.json': '{"model_type":"gpt_new"}' }, 'ERR_MODEL_TYPE'],
  [{ 'adapter_config.json': '{}' }, 'ERR_CONFIG_UNSUPPORTED'],
])('an unsupported model (%j) is refused before its weights are fetched', async (changed, code) => {
  const other = await startHub('lab/other', filesOfFolder(TINY, changed));
  const options = { needs: NEEDS, settings: other.settings(cache) };
  await expect(snapshot({ name: 'lab/other' }, options)).rejects.toEqual(failure(code, /lab--other/));
  expect(other.requests.filter(({ server }) => server === 'cdn')).toEqual([]);
  await other.close();
});

test('so is one without a tokenizer', async () => {
  const { 'llm/tokenizer.json': _, ...others } = FILES;
  const other = await startHub(NAME, others);
  const options = { needs: NEEDS, settings: other.settings(cache) };
  await expect(snapshot({ name: NAME }, options)).rejects.toEqual(failure('ERR_CONFIG_MISSING', /tokenizer\.json or/));
  expect(other.requests.filter(({ server }) => server === 'cdn')).toEqual([]);
  await other.close();
});

test('a model with pickled weights only is refused by name', async () => {
  const { [WEIGHTS]: _, 'llm/consolidated.safetensors': __, 'llm/model.fp16.safetensors': ___, ...others } = FILES;
  const other = await startHub(NAME, { ...others, 'llm/pytorch_model.bin': weights });
  const settings = other.settings(cache);
  await expect(snapshot({ name: NAME }, { needs: NEEDS, settings })).rejects.toEqual(
    failure('ERR_CHECKPOINT_MISSING', /found pytorch_model\.bin/),
  );
  expect(other.requests.filter(({ server }) => server === 'cdn')).toEqual([]);
  await other.close();
});

describe('a fetch that does not react to its signal, as that of Node 20 may not', () => {
  const own = globalThis.fetch;
  afterEach(() => {
    globalThis.fetch = own;
  });
  const silent = (): Promise<Response> => new Promise(() => undefined);
  const endless = async (): Promise<Response> => new Response(new ReadableStream({ cancel: silent as never }));

  test.each([
    ['no response', silent],
    ['a body without an end', endless],
  ])('%s: given up after the time without a byte, and at once when the caller aborts', async (_, fetch) => {
    globalThis.fetch = fetch;
    await expect(fetchModel({ stallMs: 20 })).rejects.toEqual(
      failure('ERR_HUB_UNREACHABLE', /nothing was received for/),
    );
    const reason = new Error('enough');
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 20);
    await expect(fetchModel({ signal: controller.signal })).rejects.toBe(reason);
  });
});
