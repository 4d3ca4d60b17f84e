// The stand-in for CUDA keeps its promises: standin.cu beside this file says which. What must end a process does so in one of
// its own. Knows nothing of TensorFlow and of our kernels.

import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageFolder } from '../../src/runtime/paths';
import { findCompiler } from '../../src/runtime/process';

const NATIVE = join(packageFolder(), 'native');
const folder = mkdtempSync(join(tmpdir(), 'sparsevila-standin-'));
const program = join(folder, 'standin');
const compiler = findCompiler(process.env);
const isMissing = compiler === undefined || process.platform !== 'linux';

beforeAll(async () => {
  if (compiler === undefined || process.platform !== 'linux') {
    console.warn('Not checked: this needs a C++ compiler and Linux.');
    return;
  }
  const standin = readdirSync(join(NATIVE, 'standin')).filter((name) => name.endsWith('.cc'));
  const sources = [
    ...standin.map((name) => join(NATIVE, 'standin', name)),
    join(packageFolder(), 'spec/native/standin.cu'),
  ];
  const flags = ['-std=c++17', '-O0', '-pthread', '-DSV_STANDIN', `-I${NATIVE}`];
  const compile = (source: string, index: number): Promise<unknown> =>
    promisify(execFile)(compiler, [...flags, '-x', 'c++', '-c', source, '-o', join(folder, `${index}.o`)]);
  await Promise.all(sources.map(compile));
  const objects = sources.map((_, index) => join(folder, `${index}.o`));
  await promisify(execFile)(compiler, ['-pthread', ...objects, '-o', program]);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs the program; `settings` as in SPARSEVILA_STANDIN. */
function standin(
  args: readonly string[],
  settings = '',
): { signal: string | null; status: number | null; text: string } {
  const env = { ...process.env, SPARSEVILA_STANDIN: settings };
  const { signal, status, stdout, stderr } = spawnSync(program, args, { env, encoding: 'utf8' });
  return { signal, status, text: stdout + stderr };
}

test('threads, warps, atomics, tensor cores, memory, streams and events are as in the manuals', () => {
  if (isMissing) return;
  const { status, text } = standin([]);
  expect(text.split('\n').filter((line) => !/^ok |^stand-in: something wrote|^$/.test(line))).toEqual([]);
  expect(text.match(/^ok /gm)).toHaveLength(2 * 3 * 2 * 9 + 14); // every order of running × checks of kernels, and the others
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
  if (isMissing) return;
  const result = standin([how]);
  expect(result.text).toMatch(message);
  expect(result.signal).toBe(signal);
});

test('settings: memory is bounded, unknown ones are refused', () => {
  if (isMissing) return;
  expect(standin(['read'], 'memory=399')).toEqual({ signal: null, status: 3, text: '' });
  expect(standin(['read'], 'devices=0')).toEqual({ signal: null, status: 3, text: '' });
  expect(standin(['read'], 'driver=12040')).toEqual({ signal: null, status: 3, text: '' });
  const { signal, text } = standin(['read'], 'threads=2,fibres=reverse');
  expect(text).toMatch(/SPARSEVILA_STANDIN: 'fibres=reverse' is not a setting/);
  expect(signal).toBe('SIGABRT');
});
