// Fetches pinned Python wheels that contain native files, with pip, by name, so that its configured index, mirror, proxy and certificates are
// used. Runs no Python code of a wheel. Knows which wheel has libtensorflow.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { SparseVilaError } from '../errors';
import { fullDiskIn, installOnce, requireSpace } from './atomic';
import { glibcVersion } from './machine';
import { cacheFolder, type Environment, libraryNames, TENSORFLOW_VERSION } from './paths';
import { findPip, run } from './process';
import type { OnProgress } from './progress';

export interface Wheel {
  readonly project: string;
  readonly version: string;
  /** The pip platform tag. */
  readonly platform: string;
  readonly bytes: number;
  readonly sha256: string;
  /** What to do if it cannot be fetched; ends a sentence. */
  readonly alternative: string;
}

const TENSORFLOW_ALTERNATIVE = 'point SPARSEVILA_LIBTENSORFLOW to a folder that has libtensorflow';

/** One wheel per processor. The wheels of all Python versions have the same libraries; cp311's are pinned. Only x86-64 has `tensorflow-cpu`. */
const WHEELS: Readonly<Record<string, Wheel>> = {
  'linux-x64': {
    project: 'tensorflow-cpu',
    version: TENSORFLOW_VERSION,
    platform: 'manylinux_2_27_x86_64',
    bytes: 273_829_956,
    sha256: '2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c',
    alternative: TENSORFLOW_ALTERNATIVE,
  },
  'linux-arm64': {
    project: 'tensorflow',
    version: TENSORFLOW_VERSION,
    platform: 'manylinux_2_27_aarch64',
    bytes: 281_828_020,
    sha256: '4b24aca16d527a3cf1c37f720c04c484c3d20f4d0fdfa98632ac8b9f3be6eb5c',
    alternative: TENSORFLOW_ALTERNATIVE,
  },
  'darwin-arm64': {
    project: 'tensorflow',
    version: TENSORFLOW_VERSION,
    platform: 'macosx_12_0_arm64',
    bytes: 223_405_849,
    sha256: '51f46f4806139d01fc7920cc72a4c75876f80649bf40ff083ab6212ceb43ca88',
    alternative: TENSORFLOW_ALTERNATIVE,
  },
};

/** What to do on the platforms that people ask for and that have no wheel. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  win32: 'On Windows install and run sparsevila in WSL 2 (`wsl --install`), which is Linux. ',
  'darwin-x64':
    'TensorFlow is no longer built for Intel Macs: run sparsevila in a Linux container or on another machine. ',
};

/** Free space required per byte of a wheel: itself, pip's copy of it, and its unpacked content. */
const SPACE_FACTOR = 6.2;
const MORE_SPACE = 'Free some, or set SPARSEVILA_CACHE to a folder on another disk.';
const POLL_MS = 200;

/** The C library that the platform tags of Linux wheels require: glibc 2.27. */
const GLIBC_MINOR = 27;

/** The wheel for this machine. Throws `ERR_NO_WHEEL` if there is none. */
export function wheelFor(
  platform: string = process.platform,
  arch: string = process.arch,
  glibc: string = glibcVersion() ?? '',
): Wheel {
  const wheel = WHEELS[`${platform}-${arch}`];
  const [major = 0, minor = 0] = glibc.split('.').map(Number);
  const runs = platform !== 'linux' || major > 2 || (major === 2 && minor >= GLIBC_MINOR);
  if (wheel !== undefined && runs) return wheel;
  const here = platform === 'linux' ? ` with ${glibc ? `glibc ${glibc}` : 'another C library'}` : '';
  const advice = ELSEWHERE[platform] ?? ELSEWHERE[`${platform}-${arch}`] ?? '';
  const [cc, framework] = libraryNames(platform);
  throw new SparseVilaError(
    'ERR_NO_WHEEL',
    `Expected a machine with a pinned TensorFlow ${TENSORFLOW_VERSION} wheel (${Object.keys(WHEELS).join(', ')}; ` +
      `on Linux with glibc 2.${GLIBC_MINOR} or newer) but this is ${platform}-${arch}${here}. ${advice}${advice === '' ? 'Point' : 'Or point'} SPARSEVILA_LIBTENSORFLOW to a ` +
      `folder that has lib/${cc}, lib/${framework} and include/.`,
  );
}

/** The folder of the fetched wheel in the cache. It contains one `.whl` file with a verified hash. */
export function wheelFolder(wheel: Wheel, env: Environment = process.env): string {
  return join(cacheFolder(env), `wheel-${wheel.project}-${wheel.version}-${wheel.platform}`);
}

export interface FetchOptions {
  readonly env?: Environment;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Fetches `wheel` into the cache if it is missing, checks its size and hash, and returns its path. */
export async function fetchWheel(wheel: Wheel, options: FetchOptions = {}): Promise<string> {
  const env = options.env ?? process.env;
  const folder = wheelFolder(wheel, env);
  await installOnce(folder, async (temporary) => {
    const downloads = join(temporary, 'downloads');
    await mkdir(downloads, { recursive: true });
    await requireSpace(dirname(temporary), wheel.bytes * SPACE_FACTOR, MORE_SPACE);
    await download(wheel, downloads, options);
    const file = await onlyWheelIn(downloads);
    await verifyWheel(wheel, file, options);
    await rename(file, join(temporary, `${wheel.project}.whl`));
    await rm(downloads, { recursive: true });
  });
  return join(folder, `${wheel.project}.whl`);
}

async function download(wheel: Wheel, folder: string, options: FetchOptions): Promise<void> {
  const [program = 'pip', ...args] = findPip(options.env);
  args.push('download', '--no-deps', '--no-cache-dir', '--disable-pip-version-check', '--progress-bar', 'off');
  args.push('--only-binary=:all:', '--implementation', 'cp', '--python-version', '3.11', '--abi', 'cp311');
  args.push('--platform', wheel.platform, '--dest', folder, `${wheel.project}==${wheel.version}`);
  const step = `fetch ${wheel.project} ${wheel.version}`;
  const report = (done: number) => options.onProgress?.({ step, done, total: wheel.bytes, unit: 'B' });
  report(0);
  const watch = setInterval(() => {
    largestFile(folder).then((bytes) => report(Math.min(bytes, wheel.bytes - 1)));
  }, POLL_MS);
  try {
    // pip unpacks into TMPDIR, which is set to the cache's file system, because /tmp may be too small.
    const log = join(dirname(folder), 'pip.log');
    const result = await run(program, args, { env: { ...options.env, TMPDIR: folder }, signal: options.signal, log });
    if (result.code !== 0) {
      throw (
        fullDiskIn(result.tail, folder) ??
        new SparseVilaError(
          'ERR_FETCH',
          `Expected pip to fetch ${wheel.project}==${wheel.version} (${wheel.platform}) but it failed:\n` +
            `${result.tail.join('\n')}\nCheck the network and pip's index (\`pip config list\`), then run set-up again; ` +
            `or ${wheel.alternative}.`,
        )
      );
    }
    await rm(log, { force: true });
  } finally {
    clearInterval(watch);
  }
  report(wheel.bytes);
}

async function largestFile(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  const sizes = names.map((name) =>
    stat(join(folder, name)).then(
      (s) => (s.isFile() ? s.size : 0),
      () => 0,
    ),
  );
  return Math.max(0, ...(await Promise.all(sizes)));
}

async function onlyWheelIn(folder: string): Promise<string> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.whl'));
  const [name] = names;
  if (name !== undefined && names.length === 1) return join(folder, name);
  throw new SparseVilaError('ERR_FETCH', `Expected pip to leave one wheel but found: ${names.join(', ') || 'none'}.`);
}

/** Checks a wheel's size and sha256 against the pin. Throws `ERR_WRONG_HASH`. */
export async function verifyWheel(wheel: Wheel, file: string, options: FetchOptions = {}): Promise<void> {
  const { size } = await stat(file);
  const hash = createHash('sha256');
  let done = 0;
  if (size === wheel.bytes) {
    for await (const piece of createReadStream(file, { highWaterMark: 1 << 20, signal: options.signal })) {
      hash.update(piece);
      done += piece.length;
      options.onProgress?.({ step: 'check its hash', done, total: size, unit: 'B' });
    }
    const sha256 = hash.digest('hex');
    if (sha256 === wheel.sha256) return;
    throw wrongWheel(wheel, `sha256 ${sha256}`, `sha256 ${wheel.sha256}`);
  }
  throw wrongWheel(wheel, `${size} bytes`, `${wheel.bytes} bytes`);
}

function wrongWheel(wheel: Wheel, received: string, expected: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_WRONG_HASH',
    `Expected ${expected} for ${wheel.project} ${wheel.version} (${wheel.platform}) but received ${received}. ` +
      'The download was cut short or the index serves another file: run set-up again, or use another index.',
  );
}
