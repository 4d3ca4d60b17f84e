// Folders that set-up accepts as libtensorflow, and its errors for others.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { findLibtensorflow, givenLibtensorflow, LIBRARIES, ROOT_HEADERS } from '../../src/runtime/libtensorflow';
import { verifyWheel, wheelFor } from '../../src/runtime/wheel';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-libtensorflow-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function touch(...names: string[]): void {
  for (const name of names) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), '');
  }
}

const headers = ROOT_HEADERS.map((name) => `include/${name}`);

describe('a given libtensorflow', () => {
  test('may have lib/ and include/', () => {
    touch(...LIBRARIES.map((name) => `lib/${name}`), ...headers);
    const expected = { lib: join(folder, 'lib'), include: join(folder, 'include'), source: 'given' };
    expect(givenLibtensorflow(folder)).toEqual(expected);
    expect(findLibtensorflow({ SPARSEVILA_LIBTENSORFLOW: folder, SPARSEVILA_CACHE: folder })).toEqual(expected);
  });

  test('may be the tensorflow/ of an unzipped wheel', () => {
    touch(...LIBRARIES, ...headers);
    expect(givenLibtensorflow(folder)).toEqual({ lib: folder, include: join(folder, 'include'), source: 'given' });
  });

  test('may be the folder that a wheel was unzipped to', () => {
    touch(...[...LIBRARIES, ...headers].map((name) => `tensorflow/${name}`));
    expect(givenLibtensorflow(folder).lib).toBe(join(folder, 'tensorflow'));
  });

  test('must exist', () => {
    const missing = join(folder, 'nowhere');
    expect(() => givenLibtensorflow(missing)).toThrow(`${missing} does not exist`);
    expect(() => givenLibtensorflow(missing)).toThrow(expect.objectContaining({ code: 'ERR_BAD_LIBTENSORFLOW' }));
  });

  test('is refused with the names of the missing files and of those there', () => {
    touch('lib/libtensorflow_framework.so.2', 'readme.txt', ...headers.slice(1));
    expect(() => givenLibtensorflow(folder)).toThrow(
      /missing: lib\/libtensorflow_cc\.so\.2, include\/tensorflow\/c\/c_api\.h \(the folder has: include, lib, readme\.txt\)/,
    );
  });
});

test('an empty cache has none', () => {
  expect(findLibtensorflow({ SPARSEVILA_CACHE: join(folder, 'cache') })).toBeUndefined();
});

describe('the wheel', () => {
  const wheel = { project: 'p', version: '1', platform: 'any', bytes: 3, alternative: 'do without' };
  const SHA256_OF_ABC = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';

  test('is accepted with the pinned hash', async () => {
    writeFileSync(join(folder, 'w.whl'), 'abc');
    await expect(verifyWheel({ ...wheel, sha256: SHA256_OF_ABC }, join(folder, 'w.whl'))).resolves.toBeUndefined();
  });

  test.each([
    ['another content', 'abd', /Expected sha256 ba7816bf.* received sha256 a52d159f/],
    ['cut short', 'ab', /Expected 3 bytes .* received 2 bytes/],
  ])('is refused when %s', async (_name, content, message) => {
    writeFileSync(join(folder, 'w.whl'), content);
    const verified = verifyWheel({ ...wheel, sha256: SHA256_OF_ABC }, join(folder, 'w.whl'));
    await expect(verified).rejects.toThrow(message);
    await expect(verified).rejects.toMatchObject({ code: 'ERR_WRONG_HASH' });
  });

  test('is pinned for Linux on x64 and arm64, and other machines are told what to do', () => {
    expect(wheelFor('linux', 'x64').platform).toMatch(/x86_64$/);
    expect(wheelFor('linux', 'arm64').platform).toMatch(/aarch64$/);
    expect(() => wheelFor('linux', 'x64', '')).toThrow(/linux-x64 with another C library\. Point /);
    expect(() => wheelFor('linux', 'x64', '2.26')).toThrow(/glibc 2\.26/);
    expect(wheelFor('linux', 'x64', '2.27').bytes).toBeGreaterThan(1e8);
    expect(() => wheelFor('sunos', 'x64')).toThrow(/sunos-x64.*SPARSEVILA_LIBTENSORFLOW/);
    expect(wheelFor('darwin', 'arm64', '').platform).toBe('macosx_12_0_arm64');
    expect(() => wheelFor('darwin', 'x64')).toThrow(/Intel Macs.*libtensorflow_cc\.2\.dylib/);
    expect(() => wheelFor('win32', 'x64')).toThrow(/WSL 2/);
  });
});
