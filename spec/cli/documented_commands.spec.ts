// Executes every command line that README.md, CONTRIBUTING.md, docs/ and each command's `--help` show, in folders that contain only
// an installed package. Commands that are shortened or not run are listed with reasons in documented_commands.ts.

import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { commandsOf, type Documented, examplesOf, fromHelp, fromMarkdown, planOf } from './documented_commands';
import { MAIN, ROOT } from './run';

/** What `npx`, `npm run` and the installed command start: the compiled programs, since npm would install and compile first. */
const PROGRAMS = {
  sparsevila: `exec "${process.execPath}" "${MAIN}" "$@"`,
  npx: `[ "$1" = sparsevila ] || { echo "npx: unknown $*" >&2; exit 3; }; shift; exec sparsevila "$@"`,
  npm: `[ "$1" = run ] || { echo "npm: unknown $*" >&2; exit 3; }; shift; [ "$1" = --silent ] && shift
job=$1; shift; [ "$1" = -- ] && shift
case $job in
  cli) exec sparsevila "$@" ;;
  evaluate) exec sparsevila evaluate "$@" ;;
  demo) exec "${process.execPath}" "${join(ROOT, 'dist/scripts/demo.js')}" "$@" ;;
  bench) exec "${process.execPath}" "${join(ROOT, 'dist/scripts/bench.js')}" "$@" ;;
  *) echo "npm run: unknown $job" >&2; exit 3 ;;
esac`,
};

let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'sparsevila-documented-'));
  mkdirSync(join(root, 'bin'));
  for (const [name, script] of Object.entries(PROGRAMS)) {
    writeFileSync(join(root, 'bin', name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(root, 'bin', name), 0o755);
  }
});
afterAll(() => rmSync(root, { recursive: true }));

/** README's program, which it says to save under this name. */
const HELLO = /```js\n(.*?)```/s.exec(readFileSync(join(ROOT, 'README.md'), 'utf8'))?.[1] ?? 'README has no program';

/** A folder with nothing but README's program, and the package among its modules. */
function sandbox(): string {
  const folder = mkdtempSync(join(root, 'folder-'));
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(ROOT, join(folder, 'node_modules', 'sparsevila'));
  symlinkSync(join(ROOT, 'node_modules', 'sharp'), join(folder, 'node_modules', 'sharp'));
  mkdirSync(join(folder, 'assets', 'demo'), { recursive: true });
  writeFileSync(join(folder, 'hello.mjs'), HELLO);
  return folder;
}

/** The failure of a command; undefined if it succeeds. */
function execute({ source, command }: Documented, folder: string): string | undefined {
  const plan = planOf(command);
  if (plan.kind === 'elsewhere') return undefined;
  const env = {
    ...process.env,
    PATH: `${join(root, 'bin')}:${process.env.PATH}`,
    XDG_STATE_HOME: join(folder, 'state'),
  };
  const { status, stdout, stderr } = spawnSync('bash', ['-c', plan.command], {
    cwd: folder,
    env,
    input: '',
    encoding: 'utf8',
  });
  if (status !== 0)
    return `${source}: ${command}\n  (run as: ${plan.command}) ended with ${status}: ${stderr.slice(-400)}`;
  const lost = plan.kind === 'check' ? optionsOf(plan.command).filter((option) => !stdout.includes(option)) : [];
  return lost.length === 0 ? undefined : `${source}: ${command}: its help lacks ${lost.join(', ')}`;
}

const optionsOf = (command: string): string[] =>
  command.match(/(?<= )--[a-z][a-z-]*/g)?.filter((name) => name !== '--silent') ?? [];

const seen = new Set<string>();

/**
 * Commands of one source run in order in one folder, since later ones read what earlier ones have written. A command that
 * writes no file runs once, whatever starts it and however many sources show it.
 */
function executeAll(documented: readonly Documented[]): string[] {
  const folders = new Map<string, string>();
  return documented.flatMap((one) => {
    const folder = folders.get(one.source) ?? sandbox();
    folders.set(one.source, folder);
    const plan = planOf(one.command);
    if (plan.kind === 'elsewhere') return [];
    const started = plan.command
      .replace(/^npx sparsevila |^npm run (?:--silent )?cli -- /, 'sparsevila ')
      .replace(/^npm run evaluate --/, 'sparsevila evaluate');
    const key = / --out | > |\.jsonl$/.test(started) ? `${one.source} ${started}` : started;
    if (seen.has(key)) return [];
    seen.add(key);
    return execute(one, folder) ?? [];
  });
}

test('every command line of README, CONTRIBUTING and docs', () => {
  const documented = fromMarkdown();
  expect(documented.length).toBeGreaterThan(20);
  expect(executeAll(documented)).toEqual([]);
});

test('every example of every --help', async () => {
  const documented = await fromHelp();
  for (const command of [
    'run',
    'ask',
    'chat',
    'explain',
    'serve',
    'evaluate',
    'tune',
    'download',
    'list',
    'remove',
    'cache',
    'quantize',
    'convert',
    'setup',
    'doctor',
  ])
    expect(documented.filter(({ source }) => source === `sparsevila ${command} --help`).length).toBeGreaterThan(0);
  expect(executeAll(documented)).toEqual([]);
});

describe('the spec detects mistakes', () => {
  test('commands in blocks and in running text, without their comments', () => {
    const text =
      'Use `npx sparsevila ask -q x` or `evaluate --equal time`.\n\n```\nnpx sparsevila chat   # talk\nsrc/cli  commands\n```\n\n```ts\nnpm run no\n```\n';
    expect(commandsOf(text)).toEqual([
      'npx sparsevila chat',
      'npx sparsevila ask -q x',
      'sparsevila evaluate --equal time …',
    ]);
    expect(examplesOf('x\n\nExamples:\n  # One\n  sparsevila ask -q "x"\n')).toEqual(['sparsevila ask -q "x"']);
  });

  test.each([
    'npx sparsevila ask --questoin x',
    'npx sparsevila ask -q x --image no-such-file.png',
    'sparsevila evaluate --ratio 0.5/0.5 …',
    'npm run bench -- ops --no-such-option …',
    'npm run no-such-job',
    'npx other-package',
  ])('%s fails', (command) => {
    expect(execute({ source: 'here', command }, sandbox())).toContain(command);
  });
});
