// Prepares this machine: puts the engine, libtensorflow, the native modules and, if there is a GPU, its library into the cache. Each step is
// done if its result exists, so set-up can be stopped at any time, repeated, and run concurrently.

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

/** The installation that `start()` uses. */
export interface Installation {
  readonly cache: string;
  /** The folder of the parts of tfjs-node-gpu that run. */
  readonly engine: string;
  readonly libtensorflow: Libtensorflow;
  readonly native: NativeModules;
}

/** The result of set-up. */
export interface SetupResult extends Installation {
  /** The GPU library, if it was requested and exists. */
  readonly gpu?: DeviceLibrary;
  /** Why a requested GPU library could not be built; everything then runs on the CPU. */
  readonly gpuFailure?: string;
}

export interface SetupOptions {
  /**
   * Whether to build the GPU library. By default it is built if there is an NVIDIA GPU that can run it, unless SPARSEVILA_DEVICE=cpu, and a
   * failure is reported in `gpuFailure`. If true, it is built on any machine, and a failure is an error.
   */
  readonly gpu?: boolean | undefined;
  /** Build the GPU's stand-in for the tests as well. */
  readonly standin?: boolean;
  /** Aborts set-up; complete results stay, the rest is removed. */
  readonly signal?: AbortSignal;
  /** Called while something is fetched, unpacked or compiled; never if everything exists. */
  readonly onProgress?: OnProgress;
}

/**
 * Fetches the engine and libtensorflow and compiles the native modules and the GPU library, as far as they are missing.
 * Throws `SparseVilaError` naming what is missing, or the signal's reason if aborted.
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
  if (findInstallation() === undefined) checkTools(); // before a large download
  const engine = await ensureEngine(options);
  const libtensorflow = await ensureLibtensorflow(options);
  options.signal?.throwIfAborted();
  const native = await ensureNative(libtensorflow, engine, options);
  await markUsed(native.folder);
  if (options.standin) await markUsed((await ensureDeviceLibrary('standin', libtensorflow, options)).folder);
  const gpu = (options.gpu ?? requested !== 'cpu') ? await setUpGpu(libtensorflow, options) : {};
  return { cache, engine, libtensorflow, native, ...gpu };
}

/** Throws for the first missing program or package that the remaining steps need. */
function checkTools(): void {
  if (findEngine() === undefined) requireNpm();
  if (findLibtensorflow() === undefined) {
    wheelFor();
    findPip();
  }
  requireNativeTools();
  resolvePackage('node-api-headers/package.json');
}

/** Builds the GPU library if it is requested or usable on this machine. */
async function setUpGpu(
  libtensorflow: Libtensorflow,
  options: SetupOptions,
): Promise<Pick<SetupResult, 'gpu' | 'gpuFailure'>> {
  const forced = options.gpu === true;
  const found = findDeviceLibrary('gpu', libtensorflow);
  if (found === undefined && !forced) {
    if (unsupportedReason(nvidia(), findCuda()?.version ?? CUDA_VERSION) !== undefined) return {};
    const before = gpuFailure(libtensorflow);
    // Compiling the same sources would fail again after minutes; a failed download may succeed now.
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

/** The installation that set-up made; undefined if set-up has to run (again). */
export function findInstallation(env: Environment = process.env): Installation | undefined {
  const engine = findEngine(env);
  const libtensorflow = findLibtensorflow(env);
  const native = libtensorflow && findNative(libtensorflow, env);
  if (engine === undefined || libtensorflow === undefined || native === undefined) return undefined;
  return { cache: cacheFolder(env), engine, libtensorflow, native };
}

/** The installation that set-up made. @throws SparseVilaError `ERR_NOT_SET_UP` naming what is missing */
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
