// Set-up of the engine: fetched with the installed npm, checked against its hash, installed atomically. A script stands for npm.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { codeOf } from '../../src/errors';
import { ENGINE_PACKAGE, ENGINE_VERSION, engineFolder, ensureEngine, findEngine } from '../../src/runtime/engine';
import { compilerProblem } from '../../src/runtime/native';
import { findNpm, npmEnvironment, requireNpm } from '../../src/runtime/npm';
import { findCompiler } from '../../src/runtime/process';
import { readTarball } from '../../src/runtime/tar';

const ROOT = join(__dirname, '../../..');
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-engine-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A machine whose npm is `script`, a shell script's body, with a cache of its own. */
function machine(script: string): Record<string, string> {
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  writeFileSync(join(bin, 'npm'), `#!/bin/sh\n${script}\n`);
  chmodSync(join(bin, 'npm'), 0o755);
  return { PATH: `${bin}:/usr/bin:/bin`, SPARSEVILA_CACHE: join(folder, 'cache'), npm_execpath: '' };
}

/** Of the arguments, the folder after --pack-destination. */
const DESTINATION = 'while [ "$1" != --pack-destination ]; do shift; done; to=$2';

describe('the engine', () => {
  test('is fetched by name and version, without running its scripts', async () => {
    const env = machine(`echo "$@" >${join(folder, 'args')}; exit 1`);
    await ensureEngine({ env }).catch(() => undefined);
    const args = readFileSync(join(folder, 'args'), 'utf8');
    expect(args).toContain(`pack ${ENGINE_PACKAGE}@${ENGINE_VERSION} `);
    expect(args).toContain(' --ignore-scripts ');
  });

  test("npm's message is in the error if it fails, and no file is left", async () => {
    const env = machine('echo "npm error code E401" >&2; exit 1');
    const error = await ensureEngine({ env }).catch((caught: unknown) => caught);
    expect(codeOf(error)).toBe('ERR_FETCH');
    expect(String(error)).toContain('npm error code E401');
    expect(readdirSync(join(folder, 'cache'))).toEqual([]);
    expect(findEngine(env)).toBeUndefined();
  });

  test('an archive with another hash is refused', async () => {
    const env = machine(`${DESTINATION}; printf tampered >"$to/a.tgz"`);
    await expect(ensureEngine({ env })).rejects.toMatchObject({ code: 'ERR_WRONG_HASH' });
    expect(existsSync(engineFolder(env))).toBe(false);
  });

  test('an abort ends npm', async () => {
    const env = machine('sleep 600');
    await expect(ensureEngine({ env, signal: AbortSignal.timeout(200) })).rejects.toMatchObject({
      name: 'TimeoutError',
    });
    expect(readdirSync(join(folder, 'cache'))).toEqual([]);
  });

  test('the installed engine has kernels and sources, and no copy of tfjs', () => {
    const engine = findEngine() ?? '';
    expect(readdirSync(join(engine, 'package')).sort()).toEqual(['README.md', 'binding', 'dist', 'package.json']);
    const json = JSON.parse(readFileSync(join(engine, 'package/package.json'), 'utf8')) as { version: string };
    expect(json.version).toBe(ENGINE_VERSION);
    expect(readdirSync(join(engine, 'node_modules/@tensorflow'))).toEqual(['tfjs', 'tfjs-core']);
    expect(readdirSync(join(engine, 'node_modules/@tensorflow/tfjs-core'))).toEqual(['index.js']);
  });
});

test('package.json names the engine as an optional peer of any version, so that no package manager can fail on it', () => {
  const json = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<string, object | undefined>;
  expect(json.peerDependencies).toMatchObject({ [ENGINE_PACKAGE]: '*' });
  const optional = Object.keys(json.peerDependencies ?? {}).map((name) => [name, { optional: true }]);
  expect(json.peerDependenciesMeta).toEqual(Object.fromEntries(optional));
  expect(json.optionalDependencies).toBeUndefined();
});

describe('npm', () => {
  test('is that of the calling process or in PATH; otherwise the error has a code', () => {
    const env = machine('exit 0');
    expect(findNpm(env)).toEqual([join(folder, 'bin/npm')]);
    const cli = join(folder, 'npm-cli.js');
    writeFileSync(cli, '');
    expect(findNpm({ ...env, npm_execpath: cli }, '/node')).toEqual(['/node', cli]);
    expect(findNpm({ PATH: '' }, join(folder, 'bin/node'))).toBeUndefined();
    expect(() => requireNpm({ PATH: '' }, '/nowhere/bin/node')).toThrow(
      expect.objectContaining({ code: 'ERR_NO_NPM' }),
    );
  });

  test('does not receive the settings of another package manager', () => {
    const registry = { npm_config_registry: 'theirs', HOME: '/home' };
    expect(npmEnvironment({ ...registry, npm_config_user_agent: 'npm/10' })).toEqual({});
    expect(npmEnvironment({ ...registry, npm_config_user_agent: 'yarn/1.22.22 npm/?' })).toEqual({
      npm_config_registry: undefined,
      npm_config_user_agent: undefined,
    });
  });
});

test('a compiler that is too old or has no standard library is reported before compiling', () => {
  machine('');
  const old = join(folder, 'bin/c++');
  writeFileSync(old, '#!/bin/sh\necho "c++: error: unrecognized command-line option \'-mamx-tile\'" >&2; exit 1\n');
  chmodSync(old, 0o755);
  expect(compilerProblem(old)).toContain("'-mamx-tile'");
  expect(compilerProblem(findCompiler() ?? '')).toBeUndefined();
  expect(compilerProblem('/nowhere/c++')).toContain('ENOENT');
});

describe('readTarball', () => {
  test('gives the files of an archive, long names included', () => {
    const long = `${'d'.repeat(90)}/${'f'.repeat(90)}`;
    mkdirSync(join(folder, 'in', 'd'.repeat(90)), { recursive: true });
    writeFileSync(join(folder, 'in/a.txt'), 'a'.repeat(1000));
    writeFileSync(join(folder, 'in', long), '');
    execFileSync('tar', [
      '--format=ustar',
      '-czf',
      join(folder, 't.tgz'),
      '-C',
      join(folder, 'in'),
      'a.txt',
      'd'.repeat(90),
    ]);
    const files = readTarball(readFileSync(join(folder, 't.tgz')));
    expect([...files].map(([name, { length }]) => [name, length])).toEqual([
      ['a.txt', 1000],
      [long, 0],
    ]);
  });

  test('refuses a file that is not an archive', () => {
    expect(() => readTarball(Buffer.from('text'))).toThrow(expect.objectContaining({ code: 'ERR_BAD_ZIP' }));
    const { gzipSync } = require('node:zlib') as typeof import('node:zlib');
    expect(() => readTarball(gzipSync(Buffer.alloc(2000, 'x')))).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_ZIP' }),
    );
  });
});
