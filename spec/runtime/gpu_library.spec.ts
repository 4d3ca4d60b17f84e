// The GPU's library, compiled for every architecture wherever there is an nvcc, and what it says on a machine without a GPU.
import { execFileSync } from 'node:child_process';
import { findCuda } from '../../src/runtime/cuda';
import { type DeviceLibrary, ensureDeviceLibrary } from '../../src/runtime/device-library';
import { findLibtensorflow } from '../../src/runtime/libtensorflow';
import { nvidia } from '../../src/runtime/nvidia';
import { findProgram } from '../../src/runtime/process';
import { probe } from '../support/probe';

const cuda = findCuda();
const hasGpu = nvidia().devices.length > 0;

let library: DeviceLibrary | undefined;
beforeAll(async () => {
  if (cuda === undefined) {
    console.warn('Not checked: this needs nvcc, of CUDA_HOME, PATH, or `npx sparsevila setup --gpu`.');
    return;
  }
  const libtensorflow = findLibtensorflow();
  if (libtensorflow === undefined) throw new Error('Expected libtensorflow to be set up.');
  library = await ensureDeviceLibrary('gpu', libtensorflow);
});

test('exports the table, the device and nothing of what is inside', () => {
  if (library === undefined) return;
  const nm = findProgram(['nm', 'llvm-nm']);
  if (nm === undefined) {
    console.warn('Not checked: this needs nm.');
    return;
  }
  const exported = execFileSync(nm, ['-D', '--defined-only', library.path], { encoding: 'utf8' });
  const names = [...exported.matchAll(/ [A-Za-z] (\S+)$/gm)].map(([, name]) => name ?? '');
  expect(names).toEqual(expect.arrayContaining(['SE_InitPlugin', 'sparsevila_gpu_kernels']));
  expect(names.filter((name) => !/^(SE_InitPlugin|TF_InitKernel|sparsevila_\w+)(@@.*)?$/.test(name))).toEqual([]);
});

test('has no device on a machine without a GPU, says why, and the CPU does', () => {
  if (library === undefined || hasGpu) return;
  const found = probe({ SPARSEVILA_DEVICE: 'auto' });
  expect(found).toMatchObject({ ok: true, device: 'CPU' });
  expect(found.ok && found.deviceReport).toMatch(/driver|GPU/);
});

test('is an error when asked for without a GPU', () => {
  if (library === undefined || hasGpu) return;
  const found = probe({ SPARSEVILA_DEVICE: 'gpu' });
  expect(found.ok).toBe(false);
  expect(found).toMatchObject({ message: expect.stringMatching(/SPARSEVILA_DEVICE=gpu but .*NVIDIA/) });
});
