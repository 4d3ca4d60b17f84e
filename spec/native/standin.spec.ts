// The promises of the stand-in for CUDA, which standin.cu beside this file checks. Cases that must end the process run in a
// separate one. Knows neither TensorFlow nor our kernels.

import { buildOnStandin, type Program } from '../support/standin';

let program: Program;
beforeAll(async () => {
  const parts = ['standin', 'standin_kernels', 'standin_runtime', 'standin_promises'];
  program = await buildOnStandin(parts.map((name) => `spec/native/${name}.cu`));
});
afterAll(() => program.remove());

test('threads, warps, atomics, tensor cores, memory, streams and events are as in the manuals', () => {
  const { status, stdout, stderr } = program.run();
  expect(
    stderr.split('\n').filter((line) => !/^stand-in: something wrote (before|past) the 400 b|^$/.test(line)),
  ).toEqual([]);
  expect(stdout.split('\n').filter((line) => !/^ok |^$/.test(line))).toEqual([]);
  expect(stdout.match(/^ok /gm)).toHaveLength(2 * 3 * 2 * 9 + 14); // every order of running × checks of kernels, and the others
  expect(status).toBe(0);
});

test.each([
  ['read', 'SIGSEGV', /the host touched device memory as if it were the host's .* byte 12 of an allocation of 400\./],
  ['write', 'SIGSEGV', /the host touched device memory as if it were the host's .* byte 12 of an allocation of 400\./],
  [
    'overrun',
    'SIGSEGV',
    /write_at, block \(0, 0, 0\), thread .* touched device memory out of bounds .* byte 512 of an all/,
  ],
  ['underrun', 'SIGSEGV', /write_at, .* touched device memory out of bounds/],
  ['freed', 'SIGSEGV', /write_at, .* touched device memory out of bounds/],
  ['shared', 'SIGSEGV', /past_shared, .* which is no device memory: .* dynamic shared memory out of bounds/],
  ['damage', 'SIGABRT', /something wrote past the 400 bytes of device memory/],
  [
    'deadlock',
    'SIGABRT',
    /block_alone, block \(0, 0, 0\): its threads wait .*\n.*thread \(0, 0, 0\), warp 0: __syncthreads\n/,
  ],
  ['mask', 'SIGABRT', /wrong_mask: lane 0 calls __shfl_sync with mask 000000fe, which leaves it out/],
])('%s ends the process with %s and says why', (how, signal, message) => {
  const result = program.run([how]);
  expect(result.stderr).toMatch(message);
  expect(result.signal).toBe(signal);
});

test('settings: memory is bounded, unknown ones are refused', () => {
  for (const SPARSEVILA_STANDIN of ['memory=399', 'devices=0', 'driver=12040']) {
    const result = program.run(['read'], { SPARSEVILA_STANDIN });
    expect(result).toMatchObject({ signal: null, status: 3, stderr: '' });
  }
  const { signal, stderr } = program.run(['read'], { SPARSEVILA_STANDIN: 'threads=2,fibres=reverse' });
  expect(stderr).toMatch(/SPARSEVILA_STANDIN: 'fibres=reverse' is not a setting/);
  expect(signal).toBe('SIGABRT');
});
