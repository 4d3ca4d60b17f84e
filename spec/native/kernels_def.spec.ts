// native/cuda/kernels.def lists the functions of a GPU: an entry that no op calls is dead.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageFolder } from '../../src/runtime/paths';

const NATIVE = join(packageFolder(), 'native');
const read = (name: string): string => readFileSync(join(NATIVE, name), 'utf8');
const names = [...read('cuda/kernels.def').matchAll(/^SV_KERNEL\((\w+),/gm)].map(([, name]) => name ?? '');
const ops = readdirSync(join(NATIVE, 'ops')).map((name) => read(join('ops', name)));

/** Which of the names no op calls on the table of the device library. */
function uncalled(entries: readonly string[]): string[] {
  return entries.filter((name) => !ops.some((text) => text.includes(`table_.${name}(`)));
}

test('every device function is called by an op', () => {
  expect(names.length).toBeGreaterThan(10);
  expect(uncalled(names)).toEqual([]);
});

test('scripts/gpu/test_kernels.py has a test of every device function', () => {
  const tests = readFileSync(join(packageFolder(), 'scripts/gpu/test_kernels.py'), 'utf8');
  expect(names.filter((name) => !tests.includes(`def test_${name}(gpu):`))).toEqual([]);
});

test('detects a dead entry', () => expect(uncalled(['rms_norm', 'no_op_calls_this'])).toEqual(['no_op_calls_this']));
