// Builds the device libraries into the cache: the GPU's, and its stand-in for tests. Their names depend on their sources, apart from the
// modules that Node loads. Knows no kernel.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { installOnce, replaceFile } from './atomic';
import { buildWithCmake, findBuild, requireCmake } from './cmake';
import { type CudaCompiler, ensureCuda } from './cuda';
import type { Libtensorflow } from './libtensorflow';
import { cacheFolder, type Environment, packageFolder } from './paths';
import { versionLine } from './process';
import { type SourceSet, sourceKey } from './sources';
import type { FetchOptions } from './wheel';

export type DeviceKind = 'gpu' | 'standin';

/** CUDA's runtime on a processor, as a path from native/. Only a clone has it. */
const STANDIN = '../testing/cuda';

/** native/device/CMakeLists.txt compiles the same sources for both. */
const ROOTS = /^(cuda\/[^/]+\.cu|device\/[^/]+\.(cc|txt|map))$/;
const SOURCES: Readonly<Record<DeviceKind, SourceSet>> = {
  gpu: { roots: ROOTS },
  standin: { roots: ROOTS, beside: STANDIN },
};

const LIBRARY: Readonly<Record<DeviceKind, string>> = { gpu: 'sparsevila_gpu.so', standin: 'sparsevila_standin.so' };
/** The kernels of the GPU's library alone, for tests without TensorFlow. */
export const KERNELS_LIBRARY = 'sparsevila_kernels.so';
const CUDA_NOTE = 'cuda.json';

export interface DeviceLibrary {
  readonly kind: DeviceKind;
  readonly folder: string;
  readonly path: string;
  /** For the GPU library: the version of CUDA with which it was built, which determines the required driver. */
  readonly cuda?: string;
}

/** A hash of everything that determines a device library, except the compilers. `native` is the sources' folder. */
export function deviceKey(
  kind: DeviceKind,
  libtensorflow: Libtensorflow,
  native: string = join(packageFolder(), 'native'),
): string {
  const inputs = [process.platform, process.arch, libtensorflow.lib, libtensorflow.include];
  return sourceKey(SOURCES[kind], inputs, native);
}

/** The library built from the present sources, by any compiler; undefined if there is none. */
export function findDeviceLibrary(
  kind: DeviceKind,
  libtensorflow: Libtensorflow,
  env: Environment = process.env,
): DeviceLibrary | undefined {
  const folder = findBuild(kind, deviceKey(kind, libtensorflow), env);
  return folder === undefined ? undefined : libraryIn(kind, folder);
}

function libraryIn(kind: DeviceKind, folder: string): DeviceLibrary {
  const library = { kind, folder, path: join(folder, LIBRARY[kind]) };
  if (kind === 'standin') return library;
  const { version } = JSON.parse(readFileSync(join(folder, CUDA_NOTE), 'utf8')) as { version: string };
  return { ...library, cuda: version };
}

/** Like `findDeviceLibrary`, but compiles the library if there is none; the GPU's with a compiler that is fetched if necessary. */
export async function ensureDeviceLibrary(
  kind: DeviceKind,
  libtensorflow: Libtensorflow,
  options: FetchOptions = {},
): Promise<DeviceLibrary> {
  const env = options.env ?? process.env;
  const found = findDeviceLibrary(kind, libtensorflow, env);
  if (found !== undefined) return found;
  const tools = requireCmake(env);
  const cuda = kind === 'gpu' ? await ensureCuda(options) : undefined;
  const versions = [tools.compiler, `${versionLine(tools.compiler)}`, ...(cuda ? [cuda.nvcc, cuda.version] : [])];
  const hash = createHash('sha256').update(versions.join('\0')).digest('hex').slice(0, 8);
  const folder = join(cacheFolder(env), `${kind}-${deviceKey(kind, libtensorflow)}-${hash}`);
  await installOnce(folder, async (temporary) => {
    const build = {
      name: kind === 'gpu' ? 'GPU library' : 'stand-in of the GPU',
      folder: join(packageFolder(), 'native', 'device'),
      tools,
      definitions: definitions(libtensorflow, cuda),
      inputs: [kind, ...versions, libtensorflow.lib],
      sources: SOURCES[kind],
      products: kind === 'gpu' ? [LIBRARY.gpu, KERNELS_LIBRARY] : [LIBRARY.standin],
    };
    await buildWithCmake(temporary, build, options);
    if (cuda) await writeFile(join(temporary, CUDA_NOTE), JSON.stringify(cuda));
  });
  return libraryIn(kind, folder);
}

function definitions({ lib, include }: Libtensorflow, cuda: CudaCompiler | undefined): Record<string, string> {
  const device = cuda ? { NVCC: cuda.nvcc } : { STANDIN: join(packageFolder(), 'native', STANDIN) };
  return { TENSORFLOW_LIB: lib, TENSORFLOW_INCLUDE: include, ...device };
}

/** Why the GPU's library could not be built from the present sources. */
export interface GpuFailure {
  readonly code: string;
  readonly message: string;
}

function failurePath(libtensorflow: Libtensorflow, env: Environment): string {
  return join(cacheFolder(env), `gpu-${deviceKey('gpu', libtensorflow)}.failed`);
}

/** The last failure to build the GPU library from the present sources; undefined if it was not tried or succeeded. */
export function gpuFailure(libtensorflow: Libtensorflow, env: Environment = process.env): GpuFailure | undefined {
  const path = failurePath(libtensorflow, env);
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as GpuFailure;
  } catch {
    return undefined; // The file is missing or broken.
  }
}

/** Stores a failure for doctor and for the next set-up; undefined clears it. */
export async function noteGpuFailure(
  libtensorflow: Libtensorflow,
  failure: GpuFailure | undefined,
  env: Environment = process.env,
): Promise<void> {
  const path = failurePath(libtensorflow, env);
  if (failure === undefined) await rm(path, { force: true });
  else replaceFile(path, JSON.stringify(failure));
}
