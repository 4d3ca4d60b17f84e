// The choice of nvcc: the machine's own, on simulated machines, else pinned packages.
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { cudaFolder, cudaWheels, findCuda, installedCuda, isRecentCuda, nvccVersion } from '../../src/runtime/cuda';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-cuda-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A program that prints what nvcc of that release prints. */
function nvcc(path: string, release: string): string {
  const file = join(folder, path);
  mkdirSync(dirname(file), { recursive: true });
  const words = ['nvcc: NVIDIA (R) Cuda compiler driver', `Cuda compilation tools, release ${release}, V${release}.88`];
  writeFileSync(file, `#!/bin/sh\n${words.map((line) => `echo '${line}'`).join('\n')}\n`);
  chmodSync(file, 0o755);
  return file;
}

describe('findCuda', () => {
  const env = (changes: object = {}) => ({
    PATH: join(folder, 'bin'),
    SPARSEVILA_CACHE: join(folder, 'cache'),
    ...changes,
  });

  test('none on a machine without', () => {
    expect(findCuda(env())).toBeUndefined();
    expect(findCuda(env({ CUDA_HOME: join(folder, 'nowhere') }))).toBeUndefined();
  });

  test('takes CUDA_HOME before PATH, and PATH before the fetched one', () => {
    mkdirSync(cudaFolder(env()), { recursive: true });
    const expected = { nvcc: join(cudaFolder(env()), 'bin', 'nvcc'), version: '13.0', source: 'PyPI' };
    expect(findCuda(env())).toEqual(expected);
    const path = nvcc('bin/nvcc', '12.4');
    expect(findCuda(env())).toEqual({ nvcc: path, version: '12.4', source: 'PATH' });
    const home = nvcc('cuda-12.9/bin/nvcc', '12.9');
    expect(findCuda(env({ CUDA_HOME: join(folder, 'cuda-12.9') }))).toEqual({
      nvcc: home,
      version: '12.9',
      source: 'CUDA_HOME',
    });
  });

  test('skips compilers older than 12.4, and doctor reports them', () => {
    nvcc('bin/nvcc', '12.3');
    expect(findCuda(env())).toBeUndefined();
    expect(installedCuda(env())).toMatchObject([{ version: '12.3', source: 'PATH' }]);
    nvcc('old/bin/nvcc', '9.2');
    nvcc('bin/nvcc', '13.1');
    expect(findCuda(env({ CUDA_HOME: join(folder, 'old') }))?.source).toBe('PATH');
  });

  test('skips an nvcc that does not run', () => {
    const path = nvcc('bin/nvcc', '13.0');
    writeFileSync(path, '#!/bin/sh\nexit 1\n');
    expect(nvccVersion(path)).toBeUndefined();
    expect(findCuda(env())).toBeUndefined();
  });
});

test.each([
  ['11.8', false],
  ['12.3', false],
  ['12.4', true],
  ['12.10', true],
  ['13.0', true],
  ['14.0', true],
])('CUDA %s is recent: %s', (version, recent) => {
  expect(isRecentCuda(version)).toBe(recent);
});

describe('the pinned packages', () => {
  test.each(['x64', 'arm64'])('are five for linux-%s, each with its hash', (arch) => {
    const wheels = cudaWheels('linux', arch);
    expect(wheels.map(({ project }) => project).sort()).toEqual([
      'nvidia-cuda-cccl',
      'nvidia-cuda-crt',
      'nvidia-cuda-nvcc',
      'nvidia-cuda-runtime',
      'nvidia-nvvm',
    ]);
    for (const { version, sha256, bytes, platform } of wheels) {
      expect(version).toMatch(/^13\.0\.\d+$/);
      expect(sha256).toMatch(/^[0-9a-f]{64}$/);
      expect(bytes).toBeGreaterThan(100_000);
      expect(platform).toMatch(arch === 'x64' ? /x86_64$/ : /aarch64$/);
    }
    expect(new Set(wheels.map(({ sha256 }) => sha256)).size).toBe(5);
  });

  test('omit files that compiling does not need', () => {
    const wanted = (project: string, name: string) =>
      cudaWheels('linux', 'x64')
        .find((wheel) => wheel.project === project)
        ?.files.test(name);
    expect(wanted('nvidia-cuda-nvcc', 'bin/ptxas')).toBe(true);
    expect(wanted('nvidia-cuda-nvcc', 'bin/nvcc.profile')).toBe(true);
    expect(wanted('nvidia-cuda-nvcc', 'bin/nvlink')).toBe(false);
    expect(wanted('nvidia-cuda-runtime', 'lib/libcudart_static.a')).toBe(true);
    expect(wanted('nvidia-cuda-runtime', 'lib/libcudart.so.13')).toBe(false);
    expect(wanted('nvidia-nvvm', 'nvvm/bin/cicc')).toBe(true);
    expect(wanted('nvidia-nvvm', 'lib/libnvvm.so.4')).toBe(false);
  });

  test('do not exist for other machines, and the error says what to do', () => {
    expect(() => cudaWheels('darwin', 'arm64')).toThrow(/darwin-arm64.*CUDA_HOME/);
    expect(() => cudaWheels('linux', 'riscv64')).toThrow(expect.objectContaining({ code: 'ERR_NO_WHEEL' }));
  });
});
