// The PluggableDevice on the stand-in for CUDA: every callback as TensorFlow calls it (device.cc beside this file), and
// the device's message without a usable GPU.

import { join } from 'node:path';
import { findLibtensorflow, LIBRARIES } from '../../src/runtime/libtensorflow';
import { buildOnStandin, type Program } from '../support/standin';

let program: Program;
beforeAll(async () => {
  const libtensorflow = findLibtensorflow();
  if (libtensorflow === undefined) throw new Error('Expected libtensorflow. Run the specs with `npm test`.');
  const { include, lib } = libtensorflow;
  const device = ['copies', 'device', 'devices', 'memory', 'streams'].map((name) => `native/device/${name}.cc`);
  program = await buildOnStandin(['spec/native/device.cc', ...device], {
    include: [include],
    link: [join(lib, LIBRARIES[1]), `-Wl,-rpath,${lib}`],
  });
});
afterAll(() => program.remove());

interface Device {
  readonly count: number;
  readonly bytes: number;
  readonly usesRegions: boolean;
  readonly reason: string;
  readonly report: { driver: string | null; runtime: string; devices: Record<string, unknown>[] };
}

/** Runs every check on a machine as the settings say, and returns how the device describes itself. */
function device(standin: string, env: Record<string, string> = {}): Device {
  const { status, stdout, stderr } = program.run([], {
    SPARSEVILA_STANDIN: standin,
    TF_CPP_MIN_LOG_LEVEL: '3',
    ...env,
  });
  expect(stderr.split('\n').filter((line) => line.includes('device.cc:'))).toEqual([]); // its checks
  expect(status).toBe(0);
  const [count = '', bytes = '', regions = '', reason = '', report = ''] = stdout.split('\n');
  return {
    count: Number(count),
    bytes: Number(bytes),
    usesRegions: regions === '1',
    reason,
    report: JSON.parse(report),
  };
}

test('memory, copies, streams, events, timers, callbacks, and errors that stay', () => {
  const found = device('memory=100000000');
  expect(found).toMatchObject({ count: 1, bytes: 100_000_000, usesRegions: true, reason: '' });
  expect(found.report).toEqual({
    driver: '13.0',
    runtime: '13.0',
    devices: [
      {
        name: 'Stand-in for a GPU',
        memory: 100_000_000,
        free: 100_000_000,
        capability: '9.0',
        multiprocessors: 6,
        bus: '0000:01:00.0',
      },
    ],
  });
});

test('of two GPUs TensorFlow uses the first, and the report lists both', () => {
  const found = device('devices=2');
  expect(found.count).toBe(1);
  expect(found.report.devices.map(({ bus }) => bus)).toEqual(['0000:01:00.0', '0000:02:00.0']);
  // Asking the second for its free memory would start a context on it.
  expect(found.report.devices.map(({ free }) => typeof free)).toEqual(['number', 'object']);
});

test.each([
  ['0.25', 25_000_000],
  ['1', 100_000_000],
  ['5000000', 5_000_000],
  ['3.5M', 3_670_016],
  ['40G', 100_000_000],
])('SPARSEVILA_GPU_MEMORY=%s allows %d of 100,000,000 bytes', (SPARSEVILA_GPU_MEMORY, bytes) => {
  const found = device('memory=100000000', { SPARSEVILA_GPU_MEMORY });
  expect(found.bytes).toBe(bytes);
});

test('SPARSEVILA_GPU_GUARD=1 gives every tensor an allocation of its own', () => {
  const found = device('', { SPARSEVILA_GPU_GUARD: '1' });
  expect(found.usesRegions).toBe(false);
});

test.each([
  ['devices=0', '', /^The NVIDIA driver sees no GPU\..*CUDA_VISIBLE_DEVICES/],
  ['driver=0', '', /^No NVIDIA driver was found \(libcuda\.so\.1\)\..*CUDA 13\.0 or newer.*docker run --gpus all/],
  ['driver=12040', '', /^The NVIDIA driver supports CUDA 12\.4 but CUDA 13\.0 is needed\./],
  [
    'devices=2,capability=75',
    '',
    /compute capability 8\.0 or newer is needed .* Stand-in for a GPU has 7\.5, Stand-in/,
  ],
  ['', '12Q', /^Expected bytes such as 40G, .* for SPARSEVILA_GPU_MEMORY but received '12Q'\./],
  ['', '0', /but received '0'/],
  ['', 'nan', /but received 'nan'/],
])('no device, and the reason, for %s%s', (standin, SPARSEVILA_GPU_MEMORY, reason) => {
  const found = device(standin, { SPARSEVILA_GPU_MEMORY });
  expect(found.reason).toMatch(reason);
  expect(found).toMatchObject({ count: 0, report: { devices: [] } });
  expect(found.report.driver).toBe(standin === 'driver=0' ? null : standin === 'driver=12040' ? '12.4' : '13.0');
});
