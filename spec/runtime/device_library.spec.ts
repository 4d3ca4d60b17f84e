// A GPU library that cannot be built, with a fake nvcc: the CPU stays usable, and the failure is reported.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { gpuFailure, noteGpuFailure } from '../../src/runtime/device_library';
import type { Report } from '../../src/runtime/doctor';
import { nvidia } from '../../src/runtime/nvidia';
import { findInstallation } from '../../src/runtime/setup';

const MAIN = join(__dirname, '../../src/cli/main.js');

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-gpu-library-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

test('a failure is stored for the present sources, and can be cleared', async () => {
  const libtensorflow = { lib: '/l', include: '/i', source: 'given' } as const;
  const env = { SPARSEVILA_CACHE: folder };
  const failure = { code: 'ERR_COMPILE', message: 'line 1\nline 2' };
  expect(gpuFailure(libtensorflow, env)).toBeUndefined();
  await noteGpuFailure(libtensorflow, failure, env);
  expect(gpuFailure(libtensorflow, env)).toEqual(failure);
  expect(gpuFailure({ ...libtensorflow, lib: '/elsewhere' }, env)).toBeUndefined();
  await noteGpuFailure(libtensorflow, undefined, env);
  expect(gpuFailure(libtensorflow, env)).toBeUndefined();
  expect(readdirSync(folder)).toEqual([]);
});

describe('with an nvcc that has no runtime beside it', () => {
  /** A cache that is set up for the CPU, and the environment of a user of it. */
  function environment(): NodeJS.ProcessEnv {
    const installation = findInstallation();
    if (installation === undefined) throw new Error('Expected the runtime to be set up.');
    const [cache, home] = [join(folder, 'cache'), join(folder, 'cuda')];
    mkdirSync(join(home, 'bin'), { recursive: true });
    mkdirSync(cache);
    symlinkSync(installation.native.folder, join(cache, basename(installation.native.folder)));
    writeFileSync(join(home, 'bin', 'nvcc'), "#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n");
    chmodSync(join(home, 'bin', 'nvcc'), 0o755);
    const given = { SPARSEVILA_LIBTENSORFLOW: join(installation.libtensorflow.lib, '..'), SPARSEVILA_DEVICE: 'auto' };
    return { ...process.env, ...given, SPARSEVILA_CACHE: cache, CUDA_HOME: home };
  }
  const cli = (env: NodeJS.ProcessEnv, ...args: string[]) =>
    spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8', env });

  test('set-up of the GPU fails with the reason, doctor repeats it, and the CPU works', () => {
    const env = environment();
    const forced = cli(env, 'setup', '--gpu');
    expect(forced.stderr).toMatch(/ERR_COMPILE/);
    expect(forced.stderr).toMatch(/libcudart_static\.a/);
    expect(forced.status).toBe(1);
    expect(readdirSync(env.SPARSEVILA_CACHE ?? '').filter((name) => /\.tmp-/.test(name))).toEqual([]);

    const doctor = JSON.parse(cli(env, 'doctor', '--json').stdout) as Report;
    const row = (name: string) => doctor.rows.find((found) => found.name === name);
    expect(doctor.ok).toBe(true);
    expect(row('TensorFlow')?.value).toMatch(/device CPU/);
    expect(row('GPU library')).toMatchObject({ status: 'warn', advice: expect.stringContaining('setup --gpu') });
    const log = /All of it: (\S+)/.exec(row('GPU library')?.value ?? '')?.[1] ?? '';
    expect(existsSync(log)).toBe(true);
    expect(row('CUDA compiler')?.value).toMatch(/^CUDA 13\.0 from CUDA_HOME/);

    for (const args of [[], ['--no-gpu']]) {
      const { status, stderr } = cli(env, 'setup', ...args);
      expect(status).toBe(0);
      expect(stderr).toMatch(/^Ready: /m);
    }
  });

  test('without an NVIDIA GPU nothing is built unless it is asked for', () => {
    if (nvidia().devices.length > 0) return;
    const env = environment();
    const { status, stdout } = cli(env, 'setup', '--json');
    expect(status).toBe(0);
    expect(Object.keys(JSON.parse(stdout))).toEqual(['cache', 'engine', 'libtensorflow', 'native']);
    expect(readdirSync(env.SPARSEVILA_CACHE ?? '').filter((name) => /^(gpu|cuda)-/.test(name))).toEqual([]);
  });
});
