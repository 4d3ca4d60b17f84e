// Where things live: the package, its cache folder, and the names of what set-up puts there.
// Knows names only; reads no file but the package's own package.json on the way up.

import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { SparseVilaError } from '../errors';

export type Environment = Readonly<Record<string, string | undefined>>;

/** The version of TensorFlow whose libraries this package is built and tested on. */
export const TENSORFLOW_VERSION = '2.21.0';

/**
 * The folder that holds what set-up fetched and built: `SPARSEVILA_CACHE`, else
 * `$XDG_CACHE_HOME/sparsevila`, else `~/.cache/sparsevila`. Always absolute; may not exist yet.
 */
export function cacheFolder(env: Environment = process.env): string {
  if (env.SPARSEVILA_CACHE) return resolve(env.SPARSEVILA_CACHE);
  // The XDG specification says that a relative XDG_CACHE_HOME is to be ignored.
  if (env.XDG_CACHE_HOME?.startsWith('/')) return join(env.XDG_CACHE_HOME, 'sparsevila');
  return join(homedir(), '.cache', 'sparsevila');
}

/** Where the fetched libraries and headers of libtensorflow go. */
export function libtensorflowFolder(env: Environment = process.env, arch: string = process.arch): string {
  return join(cacheFolder(env), `libtensorflow-${TENSORFLOW_VERSION}-${arch}`);
}

/** The folder of the model that this package contains, for `load`. */
export const PACKAGED_MODEL: string = join(packageFolder(), 'assets', 'tiny-nvila');

/** A picture of the kind that the packaged model was made for. */
export const PACKAGED_PICTURE: string = join(packageFolder(), 'assets', 'demo', 'scene.png');

/** The folder of this package: the nearest one above that has both package.json and native/. */
export function packageFolder(from: string = __dirname): string {
  for (let folder = resolve(from); ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json')) && existsSync(join(folder, 'native'))) return folder;
    if (folder === dirname(folder)) {
      throw new SparseVilaError(
        'ERR_PACKAGE_INCOMPLETE',
        `Expected package.json and native/ in a folder above ${from} but found none. Reinstall the package.`,
      );
    }
  }
}
