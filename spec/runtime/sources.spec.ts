// A build's name in the cache depends on the files that it compiles and includes, and on nothing else.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { deviceKey } from '../../src/runtime/device_library';
import { nativeKey } from '../../src/runtime/native';
import { packageFolder } from '../../src/runtime/paths';
import { sourceHashes, sourceKey } from '../../src/runtime/sources';

let folder: string;
let native: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-sources-'));
  native = join(folder, 'native');
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): void {
  mkdirSync(dirname(join(native, name)), { recursive: true });
  writeFileSync(join(native, name), text);
}

describe('sourceHashes', () => {
  const set = { roots: /^ops\/[^/]+\.cc$/ };
  const names = () => Object.keys(sourceHashes(set, native)).map((path) => path.slice(native.length + 1));

  test('follows includes: beside the file, and from native/', () => {
    write(
      'ops/a.cc',
      '#include "checks.h"\n  #  include "kernels/rows.inl"\n#include <vector>\n#include "../kernels/b.h"\n',
    );
    write('ops/checks.h', '#include "../../outside.h"\n#include "no_such.h"\n#include "ops/a.cc"\n');
    write('kernels/rows.inl', '');
    write('kernels/b.h', '#include "c.h"');
    write('kernels/c.h', '');
    write('kernels/unused.h', '');
    write('../outside.h', '');
    expect(names()).toEqual(['kernels/b.h', 'kernels/c.h', 'kernels/rows.inl', 'ops/a.cc', 'ops/checks.h']);
  });

  test('takes every file of a folder beside native/, and what they include from native/', () => {
    write('ops/a.cc', '');
    write('kernels/b.h', '');
    write('../testing/cuda/runtime.cc', '#include "kernels/b.h"');
    const found = Object.keys(sourceHashes({ ...set, beside: '../testing/cuda' }, native));
    expect(found.map((path) => relative(native, path))).toEqual([
      '../testing/cuda/runtime.cc',
      'kernels/b.h',
      'ops/a.cc',
    ]);
    expect(Object.keys(sourceHashes({ ...set, beside: '../nothing' }, native))).toHaveLength(1);
  });

  test('a key changes with content and inputs', () => {
    write('ops/a.cc', '#include "b.h"');
    write('ops/b.h', '1');
    const key = sourceKey(set, ['x'], native);
    expect(sourceKey(set, ['x'], native)).toBe(key);
    expect(sourceKey(set, ['y'], native)).not.toBe(key);
    write('ops/b.h', '2');
    expect(sourceKey(set, ['x'], native)).not.toBe(key);
  });
});

describe('of native/', () => {
  const libtensorflow = { lib: '/l', include: '/i', source: 'given' } as const;
  const keys = () => ({
    native: nativeKey(libtensorflow, native),
    gpu: deviceKey('gpu', libtensorflow, native),
    standin: deviceKey('standin', libtensorflow, native),
  });
  const change = (name: string) => write(name, `${readFileSync(join(native, name), 'utf8')}\n// changed\n`);

  test.each([
    ['cuda/new.cu', ['gpu', 'standin']],
    ['device/new.cc', ['gpu', 'standin']],
    ['device/exports.map', ['gpu', 'standin']],
    ['cuda/cuda.h', ['gpu', 'standin']],
    ['../testing/cuda/new.cc', ['standin']],
    ['kernels/attention.h', ['gpu', 'native', 'standin']],
    ['kernels/attention.inl', ['native']],
    ['kernels/new.cc', ['native']],
    ['addon.cc', ['native']],
    ['CMakeLists.txt', ['native']],
    ['kernels/unused.h', []],
  ])('%s belongs to %j', (name, builds) => {
    for (const name of ['native', 'testing/cuda'])
      cpSync(join(packageFolder(), name), join(folder, name), { recursive: true });
    write('cuda/table.cu', '#include "cuda.h"\n#include "kernels.h"\n');
    for (const file of [
      'cuda/new.cu',
      'device/new.cc',
      '../testing/cuda/new.cc',
      'kernels/new.cc',
      'kernels/unused.h',
    ]) {
      write(file, '');
    }
    const before = keys();
    change(name);
    const after = keys();
    const changed = (Object.keys(before) as (keyof typeof before)[]).filter((build) => before[build] !== after[build]);
    expect(changed.sort()).toEqual(builds);
  });
});
