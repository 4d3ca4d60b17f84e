// Makes this machine ready to run: the engine, libtensorflow, the native modules and, where there is a GPU, its library in the cache.
// Every step is done when its result is there, so set-up may be stopped anywhere, run again, and run twice at once.

import { codeOf, messageOf, SparseVilaError } from '../errors';
import { makeFolder } from '../files';
import { BOOLEAN, checkOptions, FUNCTION, guardedCallback, SIGNAL } from '../options';
import { resolvePackage } from '../packages';
import { markUsed, removeStale, writeError } from './atomic';
import { CUDA_VERSION, findCuda } from './cuda';
import { requestedDevice, unsupportedReason } from './device';
import {
  type DeviceLibrary,
  ensureDeviceLibrary,
  findDeviceLibrary,
  gpuFailure,
  noteGpuFailure,
} from './device_library';
import { ensureEngine, findEngine } from './engine';
import { ensureLibtensorflow, findLibtensorflow, type Libtensorflow } from './libtensorflow';
import { ensureNative, findNative, type NativeModules, requireNativeTools } from './native';
import { requireNpm } from './npm';
import { nvidia } from './nvidia';
import { cacheFolder, type Environment } from './paths';
import { findPip } from './process';
import type { OnProgress } from './progress';
import { wheelFor } from './wheel';

/** What `start()` runs on. */
export interface Installation {
  readonly cache: string;
  /** The folder of the parts of tfjs-node-gpu that run. */
  readonly engine: string;
  readonly libtensorflow: Libtensorflow;
  readonly native: NativeModules;
}

/** What set-up made. */
export interface SetupResult extends Installation {
  /** The GPU's library, where one was wanted and is there. */
  readonly gpu?: DeviceLibrary;
  /** Why there is none though one was wanted: all runs on the CPU. */
  readonly gpuFailure?: string;
}

export interface SetupOptions {
  /**
   * Whether to build the GPU's library. By default it is built where there is an NVIDIA GPU that it can run on, unless
   * SPARSEVILA_DEVICE=cpu, and what goes wrong is told in `gpuFailure`; with true it is built anywhere, or is an error.
   */
  readonly gpu?: boolean | undefined;
  /** Build the GPU's stand-in for the tests as well. */
  readonly standin?: boolean;
  /** Stops set-up; what is complete stays, the rest is removed. */
  readonly signal?: AbortSignal;
  /** Called while something is fetched, unpacked or compiled; never when all is there. */
  readonly onProgress?: OnProgress;
}

/**
 * Fetches the engine and libtensorflow and compiles the native modules and the GPU's library, as far as they are not there.
 * Throws `SparseVilaError` saying what is missing, or the signal's reason when stopped.
 */
export async function setup(given?: SetupOptions): Promise<SetupResult> {
  const { onProgress, ...options } = checkOptions<SetupOptions>('setup', given, {
    gpu: BOOLEAN,
    standin: BOOLEAN,
    signal: SIGNAL,
    onProgress: FUNCTION,
  });
  return setUp(
    onProgress === undefined ? options : { ...options, onProgress: guardedCallback('onProgress', onProgress) },
  );
}

async function setUp(options: SetupOptions): Promise<SetupResult> {
  options.signal?.throwIfAborted();
  const requested = requestedDevice();
  const cache = cacheFolder();
  try {
    makeFolder(cache);
  } catch (error) {
    throw writeError(error, cache);
  }
  await removeStale(cache);
  if (findInstallation() === undefined) checkTools(); // before fetching much for nothing
  const engine = await ensureEngine(options);
  const libtensorflow = await ensureLibtensorflow(options);
  options.signal?.throwIfAborted();
  const native = await ensureNative(libtensorflow, engine, options);
  await markUsed(native.folder);
  if (options.standin) await markUsed((await ensureDeviceLibrary('standin', libtensorflow, options)).folder);
  const gpu = (options.gpu ?? requested !== 'cpu') ? await setUpGpu(libtensorflow, options) : {};
  return { cache, engine, libtensorflow, native, ...gpu };
}

/** Throws for the first of the programs and packages that is missing for what is still to be done. */
function checkTools(): void {
  if (findEngine() === undefined) requireNpm();
  if (findLibtensorflow() === undefined) {
    wheelFor();
    findPip();
  }
  requireNativeTools();
  resolvePackage('node-api-headers/package.json');
}

/** Builds the GPU's library if it is asked for or can be used here. */
async function setUpGpu(
  libtensorflow: Libtensorflow,
  options: SetupOptions,
): Promise<Pick<SetupResult, 'gpu' | 'gpuFailure'>> {
  const forced = options.gpu === true;
  const found = findDeviceLibrary('gpu', libtensorflow);
  if (found === undefined && !forced) {
    if (unsupportedReason(nvidia(), findCuda()?.version ?? CUDA_VERSION) !== undefined) return {};
    const before = gpuFailure(libtensorflow);
    // The same sources would fail again, minutes later; what could not be fetched may be there now.
    if (before?.code === 'ERR_COMPILE') return { gpuFailure: before.message };
  }
  try {
    const gpu = found ?? (await ensureDeviceLibrary('gpu', libtensorflow, options));
    await markUsed(gpu.folder);
    await noteGpuFailure(libtensorflow, undefined);
    return { gpu };
  } catch (error) {
    options.signal?.throwIfAborted();
    await noteGpuFailure(libtensorflow, { code: codeOf(error) ?? '', message: messageOf(error) });
    if (forced) throw error;
    return { gpuFailure: messageOf(error) };
  }
}

/** What set-up has made, without making anything; undefined when it has to run (again). */
export function findInstallation(env: Environment = process.env): Installation | undefined {
  const engine = findEngine(env);
  const libtensorflow = findLibtensorflow(env);
  const native = libtensorflow && findNative(libtensorflow, env);
  if (engine === undefined || libtensorflow === undefined || native === undefined) return undefined;
  return { cache: cacheFolder(env), engine, libtensorflow, native };
}

/** What set-up has made. @throws SparseVilaError `ERR_NOT_SET_UP` naming what is missing */
export function requireInstallation(env: Environment = process.env): Installation {
  const found = findInstallation(env);
  if (found !== undefined) return found;
  const libtensorflow = findLibtensorflow(env);
  const missing = [
    ...(findEngine(env) ? [] : ['engine (tfjs-node-gpu)']),
    ...(libtensorflow ? [] : ['libtensorflow']),
    ...(libtensorflow && findNative(libtensorflow, env) ? [] : [`native modules for the present sources`]),
  ];
  throw new SparseVilaError(
    'ERR_NOT_SET_UP',
    `Expected what set-up makes in ${cacheFolder(env)} but found no ${missing.join(', no ')}. Run \`npx sparsevila setup\`; ` +
      '`npx sparsevila doctor` says what it needs.',
  );
}
