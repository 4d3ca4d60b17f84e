// What every kernel of the GPU's library takes of a multiprocessor, by architecture, as tab-separated values:
//
//   node dist/scripts/gpu/resources.js            prints it, of the library that set-up built
//   node dist/scripts/gpu/resources.js --write    keeps it in scripts/gpu/resources.tsv, with which a spec compares the library
//
// The figures depend on the compiler, so that the file names its version.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findDeviceLibrary } from '../../src/runtime/device_library';
import { findLibtensorflow } from '../../src/runtime/libtensorflow';
import { packageFolder } from '../../src/runtime/paths';
import { cubinsOf, kernelsOf } from './cubin';

export const RESOURCES_FILE = join(packageFolder(), 'scripts/gpu/resources.tsv');
const COLUMNS = [
  'sm',
  'kernel',
  'registers',
  'stack bytes',
  'shared bytes',
  'instructions',
  'spills',
  'loads in flight',
  'their bytes',
  'tensor products',
];

/** `multiply_few<Int4<2>, 1, 2>` of a symbol's full name. */
function shortName(name: string): string {
  return name
    .replace(/^void /, '')
    .replaceAll('sv::gpu::', '')
    .replaceAll('(anonymous namespace)::', '')
    .replace(/\(.*$/, '');
}

/** The table of a library that CUDA's compiler `version` made. Needs c++filt, which comes with a C++ compiler. */
export function resources(library: string, version: string): string {
  const kernels = cubinsOf(readFileSync(library)).flatMap((cubin) =>
    kernelsOf(cubin).map((kernel) => ({ architecture: cubin.architecture, ...kernel })),
  );
  const names = execFileSync('c++filt', { input: kernels.map(({ symbol }) => symbol).join('\n'), encoding: 'utf8' });
  const lines = names
    .trimEnd()
    .split('\n')
    .map((name, i) => {
      const { architecture, symbol: _symbol, ...figures } = kernels[i] as (typeof kernels)[number];
      const { registers, stack, shared, instructions, spills, loads, loadBytes, products } = figures;
      return [
        architecture,
        shortName(name),
        registers,
        stack,
        shared,
        instructions,
        spills,
        loads,
        loadBytes,
        products,
      ].join('\t');
    });
  return `nvcc ${version}\n${[COLUMNS.join('\t'), ...lines.sort()].join('\n')}\n`;
}

function main(): void {
  const libtensorflow = findLibtensorflow();
  const library = libtensorflow && findDeviceLibrary('gpu', libtensorflow);
  if (library?.cuda === undefined) throw new Error('Expected the GPU library. Run `npx sparsevila setup --gpu`.');
  const text = resources(library.path, library.cuda);
  if (process.argv.includes('--write')) writeFileSync(RESOURCES_FILE, text);
  else process.stdout.write(text);
}

if (require.main === module) main();
