// The COMDAT trap: a function that a file compiled for AVX-512 emits as a weak symbol may become the one that the whole program
// uses, and then crash processors without AVX-512. So the files of instruction-set levels define no weak symbol. They are
// compiled with -O1, which is quick and leaves more functions standing than -O3 does: it shows at least what -O3 would.

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { flagsOf, levelFiles, NATIVE } from '../support/kernel_flags';
import { requireCompiler, requireNm } from '../support/standin';

/** Files whose names end in a level of x86-64, and the symbol that each defines; kernel_levels.spec.ts has ARM's. */
const FILES = levelFiles(/^(portable|avx[0-9a-z]*)$/)
  .filter(({ file }) => /^(level|int4|int8)_/.test(file))
  .map(({ file, level }) => ({ file, level, table: file.replace('level_', 'kernels_') }));

// Only a compiler for x86 knows these levels.
(process.arch === 'x64' ? test : test.skip).each(FILES)(
  '$file defines no weak symbol',
  async ({ file, level, table }) => {
    const folder = mkdtempSync(join(tmpdir(), 'sparsevila-symbols-'));
    try {
      const object = join(folder, 'level.o');
      const flags = ['-O1', '-DNDEBUG', '-std=c++17', '-fPIC', '-fvisibility=hidden', ...flagsOf(level)];
      const source = join(NATIVE, 'kernels', `${file}.cc`);
      await promisify(execFile)(requireCompiler(), [...flags, '-c', source, '-o', object]);
      const { stdout } = await promisify(execFile)(requireNm(), ['-C', object]);
      // V and W: weak with a definition; u: unique, which is shared as well. Lower-case v and w have none.
      const weak = stdout.split('\n').filter((line) => / [VWu] /.test(line));
      expect(stdout).toMatch(new RegExp(`${table}\\b`));
      expect(weak).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);

test('every file of a level is checked', () => {
  expect(FILES.map(({ file }) => file).sort()).toEqual(
    [
      ...['portable', 'avx2', 'avx512', 'avx512bf16', 'avx512amx'].map((level) => `level_${level}`),
      ...['int4', 'int8'].flatMap((name) =>
        ['portable', 'avx2', 'avx512vnni', 'avx512amx'].map((level) => `${name}_${level}`),
      ),
    ].sort(),
  );
});

test('compiler flags are read from CMakeLists.txt', () => {
  expect(flagsOf('avx512bf16')).toEqual(
    expect.arrayContaining(['-ffp-contract=off', '-mavx2', '-mavx512f', '-mavx512bf16']),
  );
  expect(flagsOf('portable')).not.toEqual(expect.arrayContaining(['-mavx2']));
});
