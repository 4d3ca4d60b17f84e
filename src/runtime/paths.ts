// Paths of the package, of its cache folder, and of what set-up puts there. Reads no file except, to find the package's folder, its
// package.json.

import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { SparseVilaError } from '../errors';

export type Environment = Readonly<Record<string, string | undefined>>;

/** The version of TensorFlow with which this package is built and tested. */
export const TENSORFLOW_VERSION = '2.21.0';

/**
 * The folder for everything that set-up fetches and builds: `SPARSEVILA_CACHE`, else `$XDG_CACHE_HOME/sparsevila`, else
 * `~/.cache/sparsevila`. Always absolute; may not exist yet.
 */
export function cacheFolder(env: Environment = process.env): string {
  if (env.SPARSEVILA_CACHE) return resolve(env.SPARSEVILA_CACHE);
  // The XDG specification requires that a relative XDG_CACHE_HOME is ignored.
  if (env.XDG_CACHE_HOME?.startsWith('/')) return join(env.XDG_CACHE_HOME, 'sparsevila');
  return join(homedir(), '.cache', 'sparsevila');
}

/** Where the fetched libraries and headers of libtensorflow go. */
export function libtensorflowFolder(env: Environment = process.env, arch: string = process.arch): string {
  return join(cacheFolder(env), `libtensorflow-${TENSORFLOW_VERSION}-${arch}`);
}

/** The folder of the model that this package contains, for `load`. */
export const PACKAGED_MODEL: string = join(packageFolder(), 'assets', 'tiny-nvila');

/** The names of TensorFlow's two libraries on a platform. */
export function libraryNames(platform: string = process.platform): readonly [cc: string, framework: string] {
  return platform === 'darwin'
    ? ['libtensorflow_cc.2.dylib', 'libtensorflow_framework.2.dylib']
    : ['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2'];
}

/** The folder of the packaged model for films: it answers questions about a whole film of up to 48 frames. */
export const PACKAGED_FILM_MODEL: string = join(packageFolder(), 'assets', 'tiny-nvila-film');

/** A picture of the kind that the packaged model was trained on. */
export const PACKAGED_PICTURE: string = join(packageFolder(), 'assets', 'demo', 'scene.png');

/** A film of three seconds, a picture of that kind in each: an animated WebP, which needs no ffmpeg. */
export const PACKAGED_FILM: string = join(packageFolder(), 'assets', 'demo', 'film.webp');

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
