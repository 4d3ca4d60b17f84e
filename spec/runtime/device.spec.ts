// The choice of device, and the reasons against the GPU, from facts about other machines.
import {
  cpuReason,
  formatDevices,
  type GpuFacts,
  noDevice,
  requestedDevice,
  unsupportedReason,
} from '../../src/runtime/device';
import type { Gpu, Nvidia } from '../../src/runtime/nvidia';

const H200: Gpu = { name: 'NVIDIA H200', memoryBytes: 143_771 * 2 ** 20, capability: '9.0' };
const T4: Gpu = { name: 'Tesla T4', memoryBytes: 15_360 * 2 ** 20, capability: '7.5' };
const FIT: Nvidia = {
  devices: ['/dev/nvidia0'],
  driver: '/usr/lib64/libcuda.so.1',
  version: '580.65.06',
  gpus: [H200],
};
const NONE: Nvidia = { devices: [], driver: undefined, version: undefined, gpus: [] };
const LIBRARY = { kind: 'gpu', folder: '/c/gpu-1', path: '/c/gpu-1/sparsevila_gpu.so', cuda: '13.0' } as const;
const facts = (changes: Partial<GpuFacts>): GpuFacts => {
  return { nvidia: FIT, library: undefined, failure: undefined, cuda: '13.0', ...changes };
};

describe('requestedDevice', () => {
  test.each([
    [undefined, 'auto'],
    ['', 'auto'],
    ['auto', 'auto'],
    ['cpu', 'cpu'],
    ['gpu', 'gpu'],
    ['standin', 'standin'],
  ])('%j is %s', (value, requested) => {
    expect(requestedDevice({ SPARSEVILA_DEVICE: value })).toBe(requested);
  });

  test.each(['GPU', 'cuda', ' cpu'])('%j is refused', (value) => {
    expect(() => requestedDevice({ SPARSEVILA_DEVICE: value })).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_DEVICE', message: expect.stringContaining(`'${value}'`) }),
    );
    expect(() => requestedDevice({ SPARSEVILA_DEVICE: value })).toThrow('auto, cpu, gpu, standin');
  });
});

describe('unsupportedReason', () => {
  test('a recent GPU with a recent driver is supported', () => {
    expect(unsupportedReason(FIT, '13.0')).toBeUndefined();
    expect(unsupportedReason({ ...FIT, version: '581' }, '13.0')).toBeUndefined();
    expect(unsupportedReason({ ...FIT, version: undefined, gpus: [] }, '13.0')).toBeUndefined();
    expect(unsupportedReason({ ...FIT, gpus: [T4, H200] }, '13.0')).toBeUndefined();
  });

  test('a machine without a GPU gets no advice', () => {
    expect(unsupportedReason(NONE, '13.0')).toEqual({
      why: 'no NVIDIA GPU (/dev/nvidia0) and no NVIDIA driver (libcuda.so.1)',
    });
    // These are the facts of a container image that contains the driver's library.
    expect(unsupportedReason({ ...NONE, driver: '/usr/local/cuda/compat/libcuda.so.1' }, '13.0')).toEqual({
      why: 'no NVIDIA GPU (/dev/nvidia0)',
    });
  });

  test('a GPU without a driver', () => {
    const reason = unsupportedReason({ ...FIT, driver: undefined }, '13.0');
    expect(reason?.why).toBe('/dev/nvidia0, but no NVIDIA driver (libcuda.so.1)');
    expect(reason?.advice).toMatch(/--gpus all/);
  });

  test.each([
    ['580.65.05', '13.0', 'found 580.65.05, need 580.65.06'],
    ['575.57.08', '13.2', 'found 575.57.08, need 580.65.06'],
    ['525.60', '12.4', 'found 525.60, need 525.60.13'],
  ])('driver %s is too old for CUDA %s', (version, cuda, message) => {
    expect(unsupportedReason({ ...FIT, version }, cuda)?.why).toContain(message);
  });

  test('a driver for CUDA 12 works with a library built by CUDA 12', () => {
    expect(unsupportedReason({ ...FIT, version: '550.54.15' }, '12.8')).toBeUndefined();
    expect(unsupportedReason({ ...FIT, version: '550.54.15' }, '13.0')?.advice).toMatch(/CUDA_HOME/);
    expect(unsupportedReason({ ...FIT, version: '470.82.01' }, '13.0')?.advice).not.toMatch(/CUDA_HOME/);
  });

  test('a GPU older than sm_80', () => {
    expect(unsupportedReason({ ...FIT, gpus: [T4] }, '13.0')?.why).toBe(
      'the GPU is older than compute capability 8.0 (sm_80): Tesla T4 has 7.5',
    );
    expect(unsupportedReason({ ...FIT, gpus: [{ ...H200, capability: '10.0' }] }, '13.0')).toBeUndefined();
  });
});

describe('cpuReason', () => {
  test('the requested device comes first', () => {
    expect(cpuReason('cpu', facts({ library: LIBRARY }), '')).toEqual({ why: 'SPARSEVILA_DEVICE=cpu' });
  });

  test('then the machine, then the library', () => {
    expect(cpuReason('auto', facts({ nvidia: NONE, library: LIBRARY }), 'no CUDA-capable device')).toEqual(
      unsupportedReason(NONE, '13.0'),
    );
    expect(cpuReason('auto', facts({}), '')).toEqual({
      why: 'the GPU library is not built',
      advice: 'Run `npx sparsevila setup`.',
    });
    expect(cpuReason('auto', facts({ library: LIBRARY }), 'out of memory').why).toBe('out of memory');
    expect(cpuReason('auto', facts({ library: LIBRARY }), '').why).toBe('the GPU library found no device');
  });

  test('a failed build is reported by its first line, with advice', () => {
    const failure = { code: 'ERR_COMPILE', message: 'Expected a to compile but it failed.\nline\nAll of it: /log' };
    const { why, advice } = cpuReason('auto', facts({ failure }), '');
    expect(why).toBe('the GPU library could not be built: Expected a to compile but it failed.');
    expect(advice).toMatch(/setup --gpu/);
  });

  test('of the stand-in', () => {
    expect(cpuReason('standin', facts({ library: LIBRARY }), '').advice).toMatch(/npm test/);
    expect(cpuReason('standin', facts({}), 'it broke').why).toBe('it broke');
  });
});

test('noDevice names the requested device, the reason, and a remedy', () => {
  const error = noDevice('gpu', { why: 'the GPU library is not built', advice: 'Run `npx sparsevila setup`.' });
  expect(error.code).toBe('ERR_NO_GPU');
  expect(error.message).toBe(
    'Expected a device for SPARSEVILA_DEVICE=gpu but the GPU library is not built. Run `npx sparsevila setup`.',
  );
  expect(noDevice('gpu', { why: 'no NVIDIA GPU' }).message).toMatch(/Unset SPARSEVILA_DEVICE/);
});

test('formatDevices has a line per device, and returns other texts unchanged', () => {
  const device = { name: 'NVIDIA H200', memory: 150_754_820_096, free: null, capability: '9.0', multiprocessors: 132 };
  const report = { driver: '13.0', runtime: '13.0', devices: [device, { ...device, name: 'NVIDIA L4' }] };
  expect(formatDevices(JSON.stringify(report))).toBe(
    'NVIDIA H200, 151 GB, compute capability 9.0, CUDA 13.0\nNVIDIA L4, 151 GB, compute capability 9.0, CUDA 13.0',
  );
  expect(formatDevices('No NVIDIA driver was found')).toBe('No NVIDIA driver was found');
});
