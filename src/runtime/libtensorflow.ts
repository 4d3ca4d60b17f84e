// Finds or makes the folder with TensorFlow's C libraries and headers, on which native code is built and run. Knows the origin and names of the
// files; does not know what is built on them.

import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { SparseVilaError } from '../errors';
import { installOnce, removeAtOnce } from './atomic';
import { type Environment, libraryNames, libtensorflowFolder } from './paths';
import { type FetchOptions, fetchWheel, wheelFolder, wheelFor } from './wheel';
import { openZip, type Zip, type ZipMember } from './zip';

export interface Libtensorflow {
  /** Folder of the two shared libraries. */
  readonly lib: string;
  /** Folder to give to the compiler with -I. */
  readonly include: string;
  /** `wheel`: fetched by set-up. `given`: what SPARSEVILA_LIBTENSORFLOW points to. */
  readonly source: 'wheel' | 'given';
}

export const LIBRARIES = libraryNames();

/** The headers that our sources and tfjs-node's include. Headers that these include are found by reading them. */
export const ROOT_HEADERS = [
  'tensorflow/c/c_api.h',
  'tensorflow/c/c_api_experimental.h',
  'tensorflow/c/eager/c_api.h',
  'tensorflow/c/eager/c_api_experimental.h',
  'tensorflow/c/experimental/stream_executor/stream_executor.h',
  'tensorflow/c/kernels.h',
  'tensorflow/c/kernels_experimental.h',
  'tensorflow/c/ops.h',
  'tensorflow/core/platform/ctstring_internal.h',
] as const;

const WHEEL_ROOT = 'tensorflow/';

/**
 * The libtensorflow to use, without fetching: the given one (`SPARSEVILA_LIBTENSORFLOW`, checked), else
 * the cached one, else undefined.
 */
export function findLibtensorflow(env: Environment = process.env): Libtensorflow | undefined {
  if (env.SPARSEVILA_LIBTENSORFLOW) return givenLibtensorflow(env.SPARSEVILA_LIBTENSORFLOW);
  const folder = libtensorflowFolder(env);
  return existsSync(folder) ? cached(folder) : undefined;
}

/** Like `findLibtensorflow`, and fetches and unpacks the pinned wheel when there is none. */
export async function ensureLibtensorflow(options: FetchOptions = {}): Promise<Libtensorflow> {
  const env = options.env ?? process.env;
  const found = findLibtensorflow(env);
  if (found !== undefined) return found;
  const folder = libtensorflowFolder(env);
  const wheel = wheelFor();
  await installOnce(folder, async (temporary) => {
    await unpackWheel(await fetchWheel(wheel, options), temporary, options);
  });
  await removeAtOnce(wheelFolder(wheel, env)); // hundreds of megabytes that are not needed any more
  return cached(folder);
}

function cached(folder: string): Libtensorflow {
  return { lib: join(folder, 'lib'), include: join(folder, 'include'), source: 'wheel' };
}

/**
 * Checks a folder given by the user: `lib/` and `include/`, or the `tensorflow/` of an unzipped wheel (whose libraries are beside `include/`).
 * Throws `ERR_BAD_LIBTENSORFLOW` naming every missing file.
 */
export function givenLibtensorflow(path: string): Libtensorflow {
  const folder = resolve(path);
  const advice =
    'Point SPARSEVILA_LIBTENSORFLOW to a folder with lib/ and include/, or to the tensorflow/ folder of an unzipped ' +
    '`tensorflow` or `tensorflow-cpu` wheel; or unset it, and set-up fetches one.';
  if (!existsSync(folder)) {
    throw new SparseVilaError(
      'ERR_BAD_LIBTENSORFLOW',
      `Expected a folder for SPARSEVILA_LIBTENSORFLOW but ${folder} does not exist. ${advice}`,
    );
  }
  // If the folder of an unzipped wheel is given, its tensorflow/ is meant.
  if (existsSync(join(folder, 'tensorflow', LIBRARIES[0]))) return givenLibtensorflow(join(folder, 'tensorflow'));
  const lib = existsSync(join(folder, 'lib')) ? join(folder, 'lib') : folder;
  const include = join(folder, 'include');
  const wanted = [...LIBRARIES.map((name) => join(lib, name)), ...ROOT_HEADERS.map((name) => join(include, name))];
  const missing = wanted.filter((file) => !existsSync(file));
  if (missing.length === 0) return { lib, include, source: 'given' };
  const names = missing.slice(0, 4).map((file) => file.slice(folder.length + 1));
  const more = missing.length > names.length ? ` and ${missing.length - names.length} more` : '';
  const present = readdirSync(folder).slice(0, 8).join(', ') || 'nothing';
  throw new SparseVilaError(
    'ERR_BAD_LIBTENSORFLOW',
    `Expected libtensorflow ≥ 2.12 for SPARSEVILA_LIBTENSORFLOW=${folder} but these are missing: ` +
      `${names.join(', ')}${more} (the folder has: ${present}). ${advice}`,
  );
}

async function unpackWheel(wheelFile: string, target: string, options: FetchOptions): Promise<void> {
  const zip = await openZip(wheelFile);
  try {
    const headers = await headerClosure(zip);
    const members = [
      ...LIBRARIES.map((name) => ({ member: memberOf(zip, WHEEL_ROOT + name), path: join(target, 'lib', name) })),
      ...headers.map((name) => ({
        member: memberOf(zip, `${WHEEL_ROOT}include/${name}`),
        path: join(target, 'include', name),
      })),
    ];
    const total = members.reduce((sum, { member }) => sum + member.size, 0);
    let done = 0;
    const onBytes = (bytes: number) => {
      done += bytes;
      options.onProgress?.({ step: 'unpack libtensorflow', done, total, unit: 'B' });
    };
    for (const { member, path } of members) await zip.extract(member, path, { signal: options.signal, onBytes });
  } finally {
    await zip.close();
  }
}

function memberOf(zip: Zip, name: string): ZipMember {
  const member = zip.members.get(name);
  if (member !== undefined) return member;
  throw new SparseVilaError('ERR_BAD_ZIP', `Expected ${name} in the TensorFlow wheel but it is not there.`);
}

/** The root headers and all headers of the wheel that they include with quotes: 22 files instead of 287 MB. */
async function headerClosure(zip: Zip): Promise<string[]> {
  const closure = new Set<string>(ROOT_HEADERS);
  for (const name of closure) {
    const text = (await zip.read(memberOf(zip, `${WHEEL_ROOT}include/${name}`))).toString('utf8');
    for (const [, included] of text.matchAll(/^\s*#\s*include\s+"([^"]+)"/gm)) {
      if (included !== undefined && zip.members.has(`${WHEEL_ROOT}include/${included}`)) closure.add(included);
    }
  }
  return [...closure];
}
