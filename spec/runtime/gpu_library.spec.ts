// The GPU's library, compiled for every architecture wherever there is an nvcc, and what it says on a machine without a GPU.
import { execFileSync } from 'node:child_process';
import { findCuda } from '../../src/runtime/cuda';
import { type DeviceLibrary, ensureDeviceLibrary } from '../../src/runtime/device_library';
import { findLibtensorflow } from '../../src/runtime/libtensorflow';
import { nvidia } from '../../src/runtime/nvidia';
import { probe } from '../support/probe';
import { requireNm } from '../support/standin';

// Without nvcc the tests are skipped, and jest counts them as such. CI has it: `sparsevila setup --gpu` fetches it or fails.
const withCuda = findCuda() === undefined ? test.skip : test;
const withoutGpu = nvidia().devices.length > 0 ? test.skip : withCuda;

let library: DeviceLibrary;
beforeAll(async () => {
  if (findCuda() === undefined) return;
  const libtensorflow = findLibtensorflow();
  if (libtensorflow === undefined) throw new Error('Expected libtensorflow to be set up.');
  library = await ensureDeviceLibrary('gpu', libtensorflow);
});

withCuda('exports the table, the device and nothing of what is inside', () => {
  const exported = execFileSync(requireNm(), ['-D', '--defined-only', library.path], { encoding: 'utf8' });
  const names = [...exported.matchAll(/ [A-Za-z] (\S+)$/gm)].map(([, name]) => name ?? '');
  expect(names).toEqual(expect.arrayContaining(['SE_InitPlugin', 'sparsevila_gpu_kernels']));
  expect(names.filter((name) => !/^(SE_InitPlugin|TF_InitKernel|sparsevila_\w+)(@@.*)?$/.test(name))).toEqual([]);
});

withoutGpu('has no device on a machine without a GPU, says why, and the CPU does', () => {
  const found = probe({ SPARSEVILA_DEVICE: 'auto' });
  expect(found).toMatchObject({ ok: true, device: 'CPU' });
  expect(found.ok && found.deviceReport).toMatch(/driver|GPU/);
});

withoutGpu('is an error when asked for without a GPU', () => {
  const found = probe({ SPARSEVILA_DEVICE: 'gpu' });
  expect(found.ok).toBe(false);
  expect(found).toMatchObject({ message: expect.stringMatching(/SPARSEVILA_DEVICE=gpu but .*NVIDIA/) });
});
