// The paths of folders, and the environment variables that change them.
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { cacheFolder, libtensorflowFolder, packageFolder, TENSORFLOW_VERSION } from '../../src/runtime/paths';

describe('paths', () => {
  test.each([
    [{ SPARSEVILA_CACHE: '/a/b', XDG_CACHE_HOME: '/x' }, '/a/b'],
    [{ SPARSEVILA_CACHE: 'relative' }, join(process.cwd(), 'relative')],
    [{ SPARSEVILA_CACHE: '', XDG_CACHE_HOME: '/x' }, '/x/sparsevila'],
    [{ XDG_CACHE_HOME: 'not/absolute' }, join(homedir(), '.cache/sparsevila')],
    [{}, join(homedir(), '.cache/sparsevila')],
  ])('with %j the cache is %s', (env, folder) => {
    expect(cacheFolder(env)).toBe(folder);
  });

  test('libtensorflow has a folder per version and processor', () => {
    const folder = libtensorflowFolder({ SPARSEVILA_CACHE: '/c' }, 'arm64');
    expect(folder).toBe(`/c/libtensorflow-${TENSORFLOW_VERSION}-arm64`);
  });

  test('the package is found from its compiled files only', () => {
    expect(existsSync(join(packageFolder(), 'native', 'CMakeLists.txt'))).toBe(true);
    expect(() => packageFolder('/')).toThrow(expect.objectContaining({ code: 'ERR_PACKAGE_INCOMPLETE' }));
  });
});
