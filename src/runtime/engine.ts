// The engine: the part of @tensorflow/tfjs-node-gpu that is needed, fetched from npm by name, checked against its hash and kept in the cache. It
// is not a dependency in node_modules, because its install script downloads from a host that many networks block, after which package managers
// silently drop it; and because it depends on nine tfjs packages although it needs only tfjs-core, of which it gets this package's copy.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { SparseVilaError } from '../errors';
import { installOnce } from './atomic';
import { fetchPackage } from './npm';
import { cacheFolder, type Environment } from './paths';
import { readTarball } from './tar';
import type { FetchOptions } from './wheel';

export const ENGINE_PACKAGE = '@tensorflow/tfjs-node-gpu';
export const ENGINE_VERSION = '4.22.0';
/** The integrity hash of the archive in the registry, as in lock files. */
export const ENGINE_INTEGRITY =
  'sha512-p//NN6DGiN4hInUmIkRffaFVMcdTREUMjPyjW04J7OXvB2zBlQimj61eFKSgRrH3f5TnOfKzb0n56he/B6a4bw==';

const PACKED_BYTES = 223_379;

/** The files to keep: the backend, its kernels and the sources of its binding; not the tests, TensorBoard, file formats and its loader. */
const WANTED =
  /^package\/(package\.json|README\.md|binding\/[^/]+|dist\/(\w+_backend|int64_tensors|register_all_kernels|kernels\/\w+)\.js)$/;

const USE_CORE = "const core = '../../../core.js';\nmodule.exports = require(core).tf;\n";

/** Files added beside the engine's, which its modules require. `core.js` receives tfjs-core before they are loaded. */
const STAND_INS: Readonly<Record<string, string>> = {
  'core.js': '// The tfjs-core to use; set by sparsevila before anything here is loaded.\nexports.tf = undefined;\n',
  'node_modules/@tensorflow/tfjs/index.js': USE_CORE,
  'node_modules/@tensorflow/tfjs-core/index.js': USE_CORE,
  'package/dist/proto/api_pb.js': '// TensorBoard summaries are left out.\n',
};

/** The folder of the engine in the cache; its name depends on its content. */
export function engineFolder(env: Environment = process.env): string {
  const made = createHash('sha256')
    .update(JSON.stringify([ENGINE_INTEGRITY, WANTED.source, STAND_INS]))
    .digest('hex');
  return join(cacheFolder(env), `engine-${ENGINE_VERSION}-${made.slice(0, 8)}`);
}

/** The engine's folder, where set-up has put it. */
export function findEngine(env: Environment = process.env): string | undefined {
  const folder = engineFolder(env);
  return existsSync(folder) ? folder : undefined;
}

/** The package's own folder in the engine's: `package.json`, `dist/`, `binding/`. */
export const enginePackage = (engine: string): string => join(engine, 'package');

/**
 * Like `findEngine`, but fetches the engine if it is missing. A copy of the package in the project is not used: it would bring another
 * tfjs-core, and its files are unchecked.
 * @throws SparseVilaError `ERR_NO_NPM`, `ERR_FETCH`, `ERR_WRONG_HASH`; `signal.reason`
 */
export async function ensureEngine(options: FetchOptions = {}): Promise<string> {
  const env = options.env ?? process.env;
  const folder = engineFolder(env);
  const step = `fetch tfjs-node-gpu ${ENGINE_VERSION}`;
  const report = (done: number) => options.onProgress?.({ step, done, total: PACKED_BYTES, unit: 'B' });
  await installOnce(folder, async (temporary) => {
    report(0);
    const downloads = join(temporary, 'downloads');
    await mkdir(downloads, { recursive: true });
    const file = await fetchPackage(ENGINE_PACKAGE, ENGINE_VERSION, downloads, { env, signal: options.signal });
    await unpackEngine(await readFile(file), temporary);
    await rm(downloads, { recursive: true });
    report(PACKED_BYTES);
  });
  return folder;
}

/** Checks the archive and writes the engine's files. @throws SparseVilaError `ERR_WRONG_HASH` */
export async function unpackEngine(archive: Uint8Array, folder: string): Promise<void> {
  const integrity = `sha512-${createHash('sha512').update(archive).digest('base64')}`;
  if (integrity !== ENGINE_INTEGRITY) {
    throw new SparseVilaError(
      'ERR_WRONG_HASH',
      `Expected ${ENGINE_INTEGRITY} for ${ENGINE_PACKAGE}@${ENGINE_VERSION} but received ${integrity}. ` +
        'The download was cut short or the registry serves another file: run set-up again, or use another registry.',
    );
  }
  const files = [...readTarball(archive)].filter(([name]) => WANTED.test(name) && !name.endsWith('_test.js'));
  for (const [name, content] of [...files, ...Object.entries(STAND_INS)]) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
}
