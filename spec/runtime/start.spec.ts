// TensorFlow runs in this process, and starts once.
import { spawnSync } from 'node:child_process';
import { start } from '../../src/runtime/start';

describe('start', () => {
  test('adds two tensors', () => {
    const { tf, device } = start();
    const sum = tf.tidy(() => tf.add(tf.tensor1d([1, 2, 3]), tf.tensor1d([10, 20, 30])).dataSync());
    expect([...sum]).toEqual([11, 22, 33]);
    expect(['CPU', 'GPU']).toContain(device); // which one: start_device.spec.ts
  });

  test('gives the same runtime at every call', () => {
    expect(start()).toBe(start());
  });

  test('runs an op by its TensorFlow name', () => {
    const { tf, backend } = start();
    const x = tf.tensor1d([1, 4, 9]);
    const attrs = [{ name: 'T', type: backend.binding.TF_ATTR_TYPE, value: backend.binding.TF_FLOAT }];
    expect([...backend.executeSingleOutput('Sqrt', attrs, [x]).dataSync()]).toEqual([1, 2, 3]);
  });
});

test('without set-up the error names the command to run', () => {
  const before = process.env.SPARSEVILA_CACHE;
  jest.isolateModules(() => {
    const fresh = require('../../src/runtime/start') as typeof import('../../src/runtime/start');
    process.env.SPARSEVILA_CACHE = '/no/such/cache';
    try {
      expect(() => fresh.start()).toThrow(expect.objectContaining({ code: 'ERR_NOT_SET_UP' }));
      expect(() => fresh.start()).toThrow('npx sparsevila setup');
    } finally {
      if (before === undefined) delete process.env.SPARSEVILA_CACHE;
      else process.env.SPARSEVILA_CACHE = before;
    }
  });
});

test.each(['TF_NUM_INTRAOP_THREADS', 'SPARSEVILA_THREADS'])(
  'an impossible %s is an error, not the end of the process',
  (name) => {
    const load = `require(${JSON.stringify(require.resolve('../../src/runtime/start'))}).start()`;
    const env = { ...process.env, [name]: '-3' };
    const { status, stderr } = spawnSync(process.execPath, ['-e', load], { env, encoding: 'utf8', timeout: 60_000 });
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringContaining("code: 'ERR_BAD_THREADS'") });
  },
);

test('a second copy of the modules in the same process runs too', () => {
  // tfjs keeps its kernels on the global object, so the second copy finds each kernel registered, and prints a warning for it.
  jest.spyOn(console, 'warn').mockImplementation();
  jest.isolateModules(() => {
    const again = require('../../src/runtime/start') as typeof import('../../src/runtime/start');
    const runtime = again.start();
    expect(runtime).not.toBe(start());
    expect(runtime.tf.add([40], [2]).dataSync()[0]).toBe(42);
    expect(Object.values(runtime.native.cpuFeatures())).not.toEqual([]);
  });
});
