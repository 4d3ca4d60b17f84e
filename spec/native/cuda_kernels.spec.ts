// GPU kernels that need no matrix, compiled for the stand-in and compared with plain references in the programs beside this
// file.

import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageFolder } from '../../src/runtime/paths';
import { requireCompiler } from '../support/standin';

const NATIVE = join(packageFolder(), 'native');
const STANDIN = join(packageFolder(), 'testing/cuda');
const PROGRAMS = ['attention', 'cache', 'delta', 'elementwise', 'sample'] as const;
const KERNELS = ['attention', 'cache', 'delta', 'elementwise', 'errors', 'sample'];
const folder = mkdtempSync(join(tmpdir(), 'sparsevila-cuda-'));
const compiler = requireCompiler();
const run = promisify(execFile);

beforeAll(async () => {
  const standin = readdirSync(STANDIN).filter((name) => name.endsWith('.cc'));
  const shared = [
    ...standin.map((name) => join(STANDIN, name)),
    ...KERNELS.map((name) => join(NATIVE, 'cuda', `${name}.cu`)),
    join(NATIVE, 'kernels', 'sample.cc'),
  ];
  const programs = PROGRAMS.map((name) => join(packageFolder(), 'spec/native', `cuda_${name}.cu`));
  const flags = ['-std=c++17', '-O1', '-ffp-contract=off', '-pthread', '-DSV_STANDIN', `-I${STANDIN}`, '-x', 'c++'];
  const objects = await Promise.all(
    [...shared, ...programs].map(async (source, i) => {
      const object = join(folder, `${i}.o`);
      await run(compiler, [...flags, '-c', source, '-o', object]);
      return object;
    }),
  );
  const link = (name: string, i: number): Promise<unknown> =>
    run(compiler, [
      '-pthread',
      ...objects.slice(0, shared.length),
      objects[shared.length + i] as string,
      '-o',
      join(folder, name),
    ]);
  await Promise.all(PROGRAMS.map(link));
});
afterAll(() => rmSync(folder, { recursive: true }));

test.each(PROGRAMS)('%s', (name) => {
  const { status, signal, stdout, stderr } = spawnSync(join(folder, name), { encoding: 'utf8' });
  expect(stdout + stderr).toBe('0 failed\n');
  expect([status, signal]).toEqual([0, null]);
});
