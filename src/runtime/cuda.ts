// Finds or fetches nvcc, CUDA's compiler: the machine's own if it is recent enough, else NVIDIA's packages on PyPI, arranged in the cache as
// its installer would. Does not know what is compiled.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { installOnce, removeAtOnce } from './atomic';
import { cacheFolder, type Environment } from './paths';
import { findProgram } from './process';
import { type FetchOptions, fetchWheel, type Wheel, wheelFolder } from './wheel';
import { openZip } from './zip';

/** The CUDA that set-up fetches. Its libraries need an NVIDIA driver for CUDA 13. */
export const CUDA_VERSION = '13.0.88';
const OLDEST = [12, 4] as const;

export interface CudaCompiler {
  readonly nvcc: string;
  /** `13.0`. */
  readonly version: string;
  readonly source: 'CUDA_HOME' | 'PATH' | 'PyPI';
}

interface CudaWheel extends Wheel {
  /** The files of the wheel that compiling and static linking need, as paths within nvidia/cu13/. */
  readonly files: RegExp;
}

const ALTERNATIVE = 'install CUDA ≥ 12.4 and point CUDA_HOME to it; or run set-up with --no-gpu';

/** name, version, the files needed; per processor the platform tag, bytes and sha256. They belong together. */
const PACKAGES = [
  {
    project: 'nvidia-cuda-nvcc',
    version: CUDA_VERSION,
    files: /^(bin\/(?!nvlink$|bin2c$)|include\/)/,
    x64: ['manylinux_2_17_x86_64', 37_384_532, '56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03'],
    arm64: ['manylinux_2_17_aarch64', 32_455_430, 'c7ff28f86a24effdc6c034fa15230c549a273e4771b10a7fec14996f8cf3307f'],
  },
  {
    project: 'nvidia-nvvm',
    version: CUDA_VERSION,
    files: /^nvvm\//,
    x64: ['manylinux_2_12_x86_64', 61_601_415, 'c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0'],
    arm64: ['manylinux_2_17_aarch64', 59_234_185, 'c4376a291d72d22a315d9d2f69bdae8f8cd83a627f75bad395cee49a0fe65dc1'],
  },
  {
    project: 'nvidia-cuda-crt',
    version: CUDA_VERSION,
    files: /^include\//,
    x64: ['manylinux_2_17_x86_64', 134_086, '2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4'],
    arm64: ['manylinux_2_17_aarch64', 134_086, 'ee2ea2a97073e02ee62bb27841f437332be2c248e3eac013df07997ada39c003'],
  },
  {
    project: 'nvidia-cuda-runtime',
    version: '13.0.96',
    files: /^(include\/|lib\/libcudart_static\.a$)/,
    x64: ['manylinux_2_17_x86_64', 2_243_632, '7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548'],
    arm64: ['manylinux_2_17_aarch64', 2_261_060, 'ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55'],
  },
  {
    // mma.h includes nv/target of it.
    project: 'nvidia-cuda-cccl',
    version: '13.0.85',
    files: /^include\/nv\//,
    x64: ['manylinux_2_17_x86_64', 3_120_526, 'e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649'],
    arm64: ['manylinux_2_17_aarch64', 3_120_528, '6f0203e29fed809ee2b7fe9b1344df66ecab990c37d6a2e0e189b26d6c97ed7c'],
  },
] as const;

const WHEEL_ROOT = 'nvidia/cu13/';

/** The wheels that make up nvcc for a processor. Throws `ERR_NO_WHEEL` where there are none. */
export function cudaWheels(platform: string = process.platform, arch: string = process.arch): CudaWheel[] {
  if (platform !== 'linux' || (arch !== 'x64' && arch !== 'arm64')) {
    throw new SparseVilaError(
      'ERR_NO_WHEEL',
      `Expected linux-x64 or linux-arm64, for which CUDA's compiler is pinned, but this is ${platform}-${arch}. ` +
        'Install CUDA ≥ 12.4 and point CUDA_HOME to it.',
    );
  }
  return PACKAGES.map(({ project, version, files, [arch]: [tag, bytes, sha256] }) => {
    return { project, version, files, platform: tag, bytes, sha256, alternative: ALTERNATIVE };
  });
}

/** The version that an nvcc reports, like `13.0`; undefined if it does not run. */
export function nvccVersion(nvcc: string): string | undefined {
  const { stdout, status } = spawnSync(nvcc, ['--version'], { encoding: 'utf8', timeout: 60_000 });
  return status === 0 ? /release (\d+\.\d+)/.exec(stdout)?.[1] : undefined;
}

/** Whether an nvcc of this version supports the GPUs and the C++ standard that the kernels need. */
export function isRecentCuda(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]);
}

/** The machine's own compilers in the order of preference: those of CUDA_HOME, then of PATH; including outdated ones. */
export function installedCuda(env: Environment = process.env): CudaCompiler[] {
  const home = env.CUDA_HOME ? findProgram([join(env.CUDA_HOME, 'bin', 'nvcc')], env) : undefined;
  const found = [
    { nvcc: home, source: 'CUDA_HOME' },
    { nvcc: findProgram(['nvcc'], env), source: 'PATH' },
  ] as const;
  return found.flatMap(({ nvcc, source }) => {
    const version = nvcc === undefined ? undefined : nvccVersion(nvcc);
    return nvcc === undefined || version === undefined ? [] : [{ nvcc, version, source }];
  });
}

/** The compiler to use without fetching: the machine's first one that is recent enough, else the fetched one. */
export function findCuda(env: Environment = process.env): CudaCompiler | undefined {
  const installed = installedCuda(env).find(({ version }) => isRecentCuda(version));
  return installed ?? (existsSync(cudaFolder(env)) ? fetched(env) : undefined);
}

/** Where the fetched compiler goes. */
export function cudaFolder(env: Environment = process.env, arch: string = process.arch): string {
  return join(cacheFolder(env), `cuda-${CUDA_VERSION}-${arch}`);
}

function fetched(env: Environment): CudaCompiler {
  const version = CUDA_VERSION.replace(/\.\d+$/, '');
  return { nvcc: join(cudaFolder(env), 'bin', 'nvcc'), version, source: 'PyPI' };
}

/** Like `findCuda`, but fetches the pinned compiler if there is none. Files that were fetched stay if this is aborted. */
export async function ensureCuda(options: FetchOptions = {}): Promise<CudaCompiler> {
  const env = options.env ?? process.env;
  const found = findCuda(env);
  if (found !== undefined) return found;
  const wheels = cudaWheels();
  await installOnce(cudaFolder(env), async (temporary) => {
    for (const wheel of wheels) await fetchWheel(wheel, options);
    for (const wheel of wheels) await unpack(wheel, temporary, options);
    for (const folder of [join(temporary, 'bin'), join(temporary, 'nvvm', 'bin')]) await makeExecutable(folder);
  });
  for (const wheel of wheels) await removeAtOnce(wheelFolder(wheel, env));
  return fetched(env);
}

async function unpack(wheel: CudaWheel, target: string, options: FetchOptions): Promise<void> {
  const zip = await openZip(await fetchWheel(wheel, options));
  try {
    const members = [...zip.members.values()].filter(
      ({ name }) =>
        name.startsWith(WHEEL_ROOT) && !name.endsWith('/') && wheel.files.test(name.slice(WHEEL_ROOT.length)),
    );
    const total = members.reduce((sum, { size }) => sum + size, 0);
    let done = 0;
    const onBytes = (bytes: number) => {
      done += bytes;
      options.onProgress?.({ step: `unpack ${wheel.project}`, done, total, unit: 'B' });
    };
    for (const member of members) {
      const path = join(target, member.name.slice(WHEEL_ROOT.length));
      await zip.extract(member, path, { signal: options.signal, onBytes });
    }
  } finally {
    await zip.close();
  }
}

/** The zip reader knows no file modes. */
async function makeExecutable(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isFile()) await chmod(join(folder, entry.name), 0o755);
  }
}
