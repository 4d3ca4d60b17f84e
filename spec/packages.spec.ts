// Incomplete installations: their errors, and the commands that still work. Copies of the package without its node_modules stand
// for them.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { installCommand, missingPackage } from '../src/packages';
import type { Report } from '../src/runtime/doctor';

const ROOT = join(__dirname, '../..');
let project: string;
let installed: string;

beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'sparsevila-packages-'));
  installed = join(project, 'node_modules/sparsevila');
  mkdirSync(installed, { recursive: true });
  for (const name of ['dist/src', 'native', 'package.json', 'assets/demo'])
    cpSync(join(ROOT, name), join(installed, name), { recursive: true });
  symlinkSync(join(ROOT, 'assets/tiny-nvila'), join(installed, 'assets/tiny-nvila'));
});
afterAll(() => rmSync(project, { recursive: true }));

/** Gives the project all packages of this one but `missing`. */
function install(...missing: readonly string[]): void {
  const from = join(ROOT, 'node_modules');
  const names = readdirSync(from).flatMap((name) =>
    name.startsWith('@') ? readdirSync(join(from, name)).map((inner) => `${name}/${inner}`) : [name],
  );
  for (const name of names) {
    const link = join(project, 'node_modules', name);
    rmSync(link, { force: true, recursive: true });
    if (missing.some((pattern) => name === pattern || pattern === '*')) continue;
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(from, name), link);
  }
}

const cli = (...args: readonly string[]) =>
  spawnSync(process.execPath, [join(installed, 'dist/src/cli/main.js'), ...args], { encoding: 'utf8', cwd: project });

describe('without any other package', () => {
  beforeAll(() => install('*'));

  test('doctor lists each of them, in table and JSON', () => {
    const { status, stdout } = cli('doctor', '--json');
    const report = JSON.parse(stdout) as Report;
    expect(status).toBe(1);
    const failed = report.rows.filter((row) => row.status === 'fail').map(({ name }) => name);
    expect(failed).toEqual(expect.arrayContaining(['yargs', 'sharp', '@tensorflow/tfjs-core']));
    expect(report.rows.find(({ name }) => name === 'yargs')?.advice).toContain('npm install --include=optional');
    expect(cli('doctor').stdout).toMatch(/^FAIL {2}sharp +not in node_modules$/m);
  });

  test('--version prints the version, help of doctor and setup is there', () => {
    expect(cli('--version').stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect(cli('doctor', '--help').stdout).toContain('sparsevila doctor');
    expect(cli('setup', '--help').stdout).toContain('sparsevila setup');
  });

  test.each(['ask', 'chat', '--help'])(
    '%s reports the missing packages and the command that installs them',
    (command) => {
      const { status, stderr } = cli(command);
      expect(status).toBe(1);
      expect(stderr).toMatch(/ERR_PACKAGE_INCOMPLETE.*Expected the package \S+ .*npm install --include=optional/);
      expect(stderr).not.toContain('    at ');
    },
  );
});

describe('without the optional packages, where sharp has its native part', () => {
  beforeAll(() => {
    install('sharp');
    // sharp itself is installed, and its own packages are not.
    cpSync(join(ROOT, 'node_modules/sharp'), join(project, 'node_modules/sharp'), { recursive: true });
    rmSync(join(project, 'node_modules/@img'), { recursive: true });
    rmSync(join(project, 'node_modules/sharp/node_modules'), { recursive: true, force: true });
  });

  test('doctor has one FAIL line with the command that fixes it', () => {
    const { stdout } = cli('doctor', '--json');
    const failed = (JSON.parse(stdout) as Report).rows.filter((row) => row.status === 'fail');
    expect(failed).toMatchObject([
      {
        name: 'sharp',
        value: expect.stringContaining('does not load'),
        advice: expect.stringContaining('npm install'),
      },
    ]);
  });

  test('setup works; ask with a picture is refused before a model is loaded', () => {
    expect(cli('setup').status).toBe(0);
    const image = join(installed, 'assets/demo/scene.png');
    const { status, stderr } = cli('ask', '--model', '/nowhere', '--image', image, '--question', 'What is at b4?');
    expect(status).toBe(1);
    expect(stderr).toMatch(/ERR_PACKAGE_INCOMPLETE.*sharp/);
  });
});

test('loading the package loads no other package that can be missing', () => {
  const code = `require(${JSON.stringify(join(ROOT, 'dist/src/index.js'))}); console.log(JSON.stringify(Object.keys(require.cache)))`;
  const loaded = JSON.parse(spawnSync(process.execPath, ['-e', code], { encoding: 'utf8' }).stdout) as string[];
  expect(loaded.filter((file) => /node_modules\/(sharp|@img|@tensorflow|vega)/.test(file))).toEqual([]);
});

describe('installCommand', () => {
  test.each([
    ['package-lock.json', 'npm install --include=optional'],
    ['pnpm-lock.yaml', 'pnpm install --force'],
    ['yarn.lock', 'yarn install --force'],
    ['bun.lock', 'bun install --force'],
  ])('with %s: %s', (lockFile, command) => {
    writeFileSync(join(project, lockFile), '');
    expect(installCommand(installed)).toBe(command);
    rmSync(join(project, lockFile));
  });

  test('a missing peer dependency is added, since no lock file has it', () => {
    const { message } = missingPackage('pg', Object.assign(new Error('none'), { code: 'MODULE_NOT_FOUND' }));
    expect(message).toMatch(/^Expected the package pg in node_modules but it is not there\. Run `npm install pg@\^8\./);
  });

  test('the error names the package and the reason', () => {
    expect(existsSync(project)).toBe(true);
    const error = missingPackage('sharp', new Error('Could not load the "sharp" module\nmore'));
    expect(error.message).toContain('Expected the package sharp in node_modules but it does not load (Could not load');
  });
});
