// Makes this machine ready to run: libtensorflow and the native modules in the cache. Every step is done when
// its result is there, so set-up may be stopped anywhere, run again, and run twice at once.

import { mkdir } from 'node:fs/promises';
import { markUsed, removeStale } from './atomic';
import { ensureLibtensorflow, findLibtensorflow, type Libtensorflow } from './libtensorflow';
import { ensureNative, findNative, type NativeModules, requireBuildTools } from './native';
import { cacheFolder, type Environment } from './paths';
import type { OnProgress } from './progress';

/** What `start()` runs on. */
export interface Installation {
  readonly cache: string;
  readonly libtensorflow: Libtensorflow;
  readonly native: NativeModules;
}

export interface SetupOptions {
  /** Stops set-up; what is complete stays, the rest is removed. */
  readonly signal?: AbortSignal;
  /** Called while something is fetched, unpacked or compiled; never when all is there. */
  readonly onProgress?: OnProgress;
}

/**
 * Fetches libtensorflow and compiles the native modules, as far as they are not there.
 * Throws `SparseVilaError` saying what is missing, or the signal's reason when stopped.
 */
export async function setup(options: SetupOptions = {}): Promise<Installation> {
  options.signal?.throwIfAborted();
  const cache = cacheFolder();
  await mkdir(cache, { recursive: true });
  await removeStale(cache);
  if (findInstallation() === undefined) requireBuildTools(); // before fetching much for nothing
  const libtensorflow = await ensureLibtensorflow(options);
  options.signal?.throwIfAborted();
  const native = await ensureNative(libtensorflow, options);
  await markUsed(native.folder);
  return { cache, libtensorflow, native };
}

/** What set-up has made, without making anything; undefined when it has to run (again). */
export function findInstallation(env: Environment = process.env): Installation | undefined {
  const libtensorflow = findLibtensorflow(env);
  const native = libtensorflow && findNative(libtensorflow, env);
  return libtensorflow && native && { cache: cacheFolder(env), libtensorflow, native };
}
