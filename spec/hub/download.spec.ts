// Models by name, against a stand-in of the Hub: the files that are fetched, their places, and failures of the network.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { blobFile } from '../../src/hub/cache';
import type { Snapshot } from '../../src/hub/snapshot';
import { type Fault, gitSha1, type Hub, type Seen, sha256 } from '../support/hub';
import {
  BYTES,
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

test('downloads only required files, in the layout of the Python tools; a second call makes no request', async () => {
  const progress: { done: number; total: number; step: string }[] = [];
  const { folder, commit, fetched } = await fetchModel({ onProgress: (one) => progress.push(one) });
  expectWhole(folder);
  expect([commit, fetched]).toEqual([hub.commit, BYTES]);
  expect(folder).toBe(join(cache, 'models--lab--tiny-nvila', 'snapshots', hub.commit));
  expect(readFileSync(join(repository, 'refs', 'main'), 'utf8')).toBe(hub.commit);
  for (const path of OWN) {
    const bytes = FILES[path] as Buffer;
    const hash = path.endsWith('.safetensors') ? sha256(bytes) : gitSha1(bytes);
    expect(readlinkSync(join(folder, path))).toBe(`${'../'.repeat(path.split('/').length + 1)}blobs/${hash}`);
  }
  expect(readdirSync(join(repository, 'blobs')).every((name) => /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(name))).toBe(true);
  expect(existsSync(join(cache, '.locks', 'models--lab--tiny-nvila', 'sparsevila'))).toBe(false);
  // One bar, whose total is known from its beginning and never falls back.
  expect(new Set(progress.map(({ step, total }) => `${step} ${total}`))).toEqual(
    new Set([`download ${NAME} ${BYTES}`]),
  );
  expect(progress.every(({ done }, i) => done >= (progress[i - 1]?.done ?? 0))).toBe(true);
  expect(progress.at(-1)?.done).toBe(BYTES);
  hub.forget();
  expect(await fetchModel()).toEqual({ folder, commit, fetched: 0 });
  expect(await fetchModel({ offline: true, update: true })).toEqual({ folder, commit, fetched: 0 });
  expect(await fetchModel({ revision: commit })).toEqual({ folder, commit, fetched: 0 });
  expect(hub.requests).toEqual([]);
});

test('an update requests only the commit if it is in the cache; tags and pull requests are revisions', async () => {
  await fetchModel({ revision: 'v1' });
  hub.forget();
  expect((await fetchModel({ revision: 'v1', update: true })).fetched).toBe(0);
  expect((await fetchModel({ revision: 'refs/pr/3' })).fetched).toBe(0);
  expect(hub.requests.map(({ path }) => path)).toEqual([
    `/api/models/${NAME}/revision/v1?blobs=true`,
    `/api/models/${NAME}/revision/refs%2Fpr%2F3?blobs=true`,
  ]);
  expect(readFileSync(join(repository, 'refs/refs/pr/3'), 'utf8')).toBe(hub.commit);
});

test('a cache that cannot be written is read, and asked about, as long as nothing is missing', async () => {
  const { folder } = await fetchModel();
  rmSync(join(cache, '.locks'), { recursive: true });
  writeFileSync(join(cache, '.locks'), 'no folder can be made here');
  expect((await fetchModel({ offline: true })).folder).toBe(folder);
  expect((await fetchModel({ update: true })).folder).toBe(folder);
  rmSync(join(folder, 'config.json'));
  await expect(fetchModel()).rejects.toEqual(failure('ERR_OUTPUT_UNWRITABLE', /locks/));
});

test('a server that gives neither sizes nor hashes of a revision is asked for its tree, page by page', async () => {
  hub.withoutBlobs();
  expectWhole((await fetchModel()).folder);
  expect(hub.requests.filter(({ path }) => path.includes('/tree/')).length).toBeGreaterThan(2);
});

describe('a snapshot without a stored listing, as left by older Python tools', () => {
  const place = (paths: readonly string[]): string => {
    const folder = join(repository, 'snapshots', 'a'.repeat(40));
    for (const path of paths) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), FILES[path] as Buffer);
    }
    mkdirSync(join(repository, 'refs'));
    writeFileSync(join(repository, 'refs', 'main'), 'a'.repeat(40));
    return folder;
  };

  test('is complete if all parts exist', async () => {
    const folder = place(OWN);
    expect(await fetchModel({ offline: true })).toEqual({ folder, commit: 'a'.repeat(40), fetched: 0 });
  });

  test.each([
    WEIGHTS,
    'vision_tower/model.safetensors',
    'config.json',
    'llm/tokenizer.json',
    'mm_projector/config.json',
    'vision_tower/preprocessor_config.json',
  ])('is incomplete without %s', async (lost) => {
    place(OWN.filter((path) => path !== lost));
    await expect(fetchModel({ offline: true })).rejects.toEqual(failure('ERR_HUB_OFFLINE', /HF_HUB_OFFLINE/));
  });
});

describe('connections', () => {
  test('an interrupted one continues, and no byte is received twice', async () => {
    hub.misbehave((seen, count) => (isWeights(seen) && count <= 3 ? { breakAfter: 1_000_000 } : undefined));
    expectWhole((await fetchModel()).folder);
    const ranges = hub.requests.filter(isWeights).map(({ range }) => Number(/\d+/.exec(range ?? '')?.[0] ?? 0));
    expect(ranges).toHaveLength(4);
    expect(ranges.every((begin, i) => i === 0 || begin > (ranges[i - 1] ?? 0))).toBe(true);
  });

  test('a stalled one is aborted and continued', async () => {
    const slow: Fault = { piece: 500_000, pauseMs: 400 };
    hub.misbehave((seen, count) => (isWeights(seen) && count === 1 ? slow : undefined));
    expectWhole((await fetchModel({ stallMs: 150 })).folder);
    expect(hub.requests.filter(isWeights)).toHaveLength(2);
  });

  test('a response that ends early without a length is continued', async () => {
    hub.misbehave((seen, count) => (isWeights(seen) && count === 1 ? { endAfter: 70_000 } : undefined));
    expectWhole((await fetchModel()).folder);
    expect(hub.requests.filter(isWeights)[1]?.range).toBe('bytes=70000-');
  });

  test('a server without ranges sends all of it again', async () => {
    hub.misbehave((seen, count) =>
      !isWeights(seen) ? undefined : count === 1 ? { breakAfter: 1_000_000 } : { noRanges: true },
    );
    expectWhole((await fetchModel()).folder);
  });

  test('one without progress ends with advice, and keeps the received bytes', async () => {
    hub.misbehave((seen, count) => (isWeights(seen) ? { breakAfter: count === 1 ? 1_000_000 : 0 } : undefined));
    await expect(fetchModel()).rejects.toEqual(failure('ERR_HUB_UNREACHABLE', /Check the network/));
    expect(hub.requests.filter(isWeights)).toHaveLength(5);
    expect(statSync(partial).size).toBeGreaterThan(100_000);
    expect(existsSync(join(repository, 'refs', 'main'))).toBe(false);
  });

  test('no server at all', async () => {
    await hub.close();
    await expect(fetchModel()).rejects.toEqual(
      failure('ERR_HUB_UNREACHABLE', /127\.0\.0\.1:\d+ cannot be reached.*ECONNREFUSED/),
    );
  });
});

describe('files of an earlier process', () => {
  const leave = (bytes: Buffer): void => {
    mkdirSync(dirname(partial), { recursive: true });
    writeFileSync(partial, bytes);
  };
  const asked = (): (string | undefined)[] => hub.requests.filter(isWeights).map(({ range }) => range);

  test('its bytes are not fetched again', async () => {
    leave(weights.subarray(0, 5_000_000));
    const { folder, fetched } = await fetchModel();
    expectWhole(folder);
    expect([asked(), fetched]).toEqual([['bytes=5000000-'], BYTES - 5_000_000]);
  });

  test('a whole file is only checked', async () => {
    leave(weights);
    expectWhole((await fetchModel()).folder);
    expect(asked()).toEqual([]);
  });

  test.each([
    ['damaged bytes', Buffer.alloc(5_000_000, 7), ['bytes=5000000-', undefined]],
    ['a damaged whole file', Buffer.alloc(weights.length, 7), [undefined]],
    ['more bytes than the file has', Buffer.alloc(weights.length + 1, 7), [undefined]],
  ])('%s: the file is fetched from its beginning', async (_, bytes, ranges) => {
    leave(bytes);
    expectWhole((await fetchModel()).folder);
    expect(asked()).toEqual(ranges);
  });

  test('416 to the rest of a file: it is fetched from its beginning', async () => {
    leave(weights.subarray(0, 5_000_000));
    hub.misbehave((seen) => (isWeights(seen) && seen.range !== undefined ? { status: 416 } : undefined));
    expectWhole((await fetchModel()).folder);
    expect(asked()).toEqual(['bytes=5000000-', undefined]);
  });

  test('a truncated blob is replaced', async () => {
    const { folder } = await fetchModel();
    truncateSync(join(folder, WEIGHTS), 1000);
    expectWhole((await fetchModel()).folder);
  });
});

describe('wrong bytes', () => {
  const flipped = (right: Buffer): Buffer => Buffer.from(right.map((byte, i) => (i === 1000 ? byte ^ 1 : byte)));

  test('once: the file is fetched again', async () => {
    hub.misbehave((seen, count) => (isWeights(seen) && count === 1 ? { bytes: flipped } : undefined));
    expectWhole((await fetchModel()).folder);
  });

  test.each([
    [WEIGHTS, /sha256/],
    ['config.json', /git sha1/],
  ])('of %s each time: an error, and no such file in the cache', async (path, kind) => {
    const bytes = FILES[path] as Buffer;
    const wrong = (right: Buffer): Buffer => Buffer.from(right.map((byte, i) => (i === 100 ? byte ^ 1 : byte)));
    const isFile = (seen: Seen): boolean =>
      seen.path.includes(sha256(bytes)) || seen.path.endsWith(`${hub.commit}/${path}`);
    hub.misbehave((seen) => (isFile(seen) ? { bytes: wrong } : undefined));
    await expect(fetchModel()).rejects.toEqual(failure('ERR_HUB_HASH', kind));
    const blobs = readdirSync(join(repository, 'blobs'));
    expect(blobs.filter((name) => name.startsWith(sha256(bytes)) || name.startsWith(gitSha1(bytes)))).toEqual([]);
  });

  test('more bytes than listed', async () => {
    hub.misbehave((seen) => (isWeights(seen) ? { bytes: (right) => Buffer.concat([right, right]) } : undefined));
    await expect(fetchModel()).rejects.toEqual(failure('ERR_HUB_HASH', /received more/));
    expect(existsSync(blobFile(repository, sha256(weights)))).toBe(false);
  });
});

test('an abort stops at once with its reason, and keeps the received bytes', async () => {
  hub.misbehave((seen) => (isWeights(seen) ? { piece: 200_000, pauseMs: 20 } : undefined));
  const controller = new AbortController();
  const reason = new Error('enough');
  const onProgress = ({ done }: { done: number }): void => {
    if (done > 4_000_000) controller.abort(reason);
  };
  await expect(fetchModel({ signal: controller.signal, onProgress })).rejects.toBe(reason);
  expect(statSync(partial).size).toBeGreaterThan(200_000);
  expect(existsSync(join(cache, '.locks', 'models--lab--tiny-nvila', 'sparsevila'))).toBe(false);
  hub.misbehave(() => undefined);
  hub.forget();
  expectWhole((await fetchModel()).folder);
  expect(hub.requests.filter(isWeights)[0]?.range).toMatch(/^bytes=\d{6,}-$/);
  await expect(fetchModel({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});

test('several at once in one process download once', async () => {
  const progress: number[] = [];
  hub.misbehave((seen) => (isWeights(seen) ? { piece: 400_000, pauseMs: 50 } : undefined));
  const all = await Promise.all([
    fetchModel(),
    fetchModel({ onProgress: ({ done }) => progress.push(done) }),
    fetchModel(),
  ]);
  expect(new Set(all.map(({ folder }) => folder)).size).toBe(1);
  expect(all.map(({ fetched }) => fetched).sort((a, b) => a - b)).toEqual([0, 0, BYTES]);
  expect(hub.requests.filter(isWeights)).toHaveLength(1);
  expectWhole((await fetchModel()).folder);
});
