// Prepares a fresh clone and runs a job: installs packages, compiles TypeScript, sets up the runtime, each only if
// something changed since, then runs the job: node scripts/bootstrap.mjs <demo|test|lint|format|cli|bench|pack-check|build|compile> [args…].
// Plain JavaScript with only Node's own modules, because it runs before packages are installed. It prints to stderr.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SOURCE_FOLDERS = ['src', 'scripts', 'spec', 'testing'];
const OUTPUT = /(\.d\.ts|\.js|\.js\.map)$/;
const at = (...names) => join(ROOT, ...names);
const modules = (...names) => at('node_modules', ...names);

// The command line of each job. `setup: false` for jobs that must work on a machine that is not set up.
const JOBS = {
  demo: (args) => ({ command: [process.execPath, at('dist/scripts/demo.js'), ...args], setup: true }),
  bench: (args) => ({ command: [process.execPath, at('dist/scripts/bench.js'), ...args], setup: true }),
  test: (args) => ({
    // The second reporter ends the output with `N passed, N failed`. Reporters come last: a file name after them would be one.
    command: [
      ...[process.execPath, modules('jest/bin/jest.js'), '--config', at('jest.config.js'), ...args],
      ...['--reporters=default', `--reporters=${at('scripts/jest_counts.cjs')}`],
    ],
    // Without lint if only some specs are run.
    lint: args.length === 0,
    setup: true,
    standin: true,
  }),
  lint: () => ({ command: undefined, lint: true, setup: false }),
  format: () => ({ command: undefined, format: true, setup: false }),
  cli: (args) => ({
    command: [process.execPath, at('dist/src/cli/main.js'), ...args],
    setup: ['run', 'ask', 'chat', 'explain', 'evaluate', 'tune', 'quantize', 'convert'].includes(args[0]),
  }),
  'pack-check': (args) => ({ command: [process.execPath, at('scripts/pack_check.mjs'), ...args], setup: true }),
  sanitize: (args) => ({ command: ['bash', at('scripts/sanitize.sh'), ...args], setup: true }),
  build: () => ({ command: undefined, setup: true }),
  compile: () => ({ command: undefined, setup: false }),
};

const say = (text) => process.stderr.write(`${text}\n`);
const readIfThere = (path) => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);
const hashOf = (...texts) =>
  texts.reduce((hash, text) => hash.update(text).update('\0'), createHash('sha256')).digest('hex');

/** Runs a program to its end and returns its exit code. A signal to us goes to it as well. */
async function run([program, ...args], stdio) {
  const child = spawn(program, args, { cwd: stdio === 'inherit' ? undefined : ROOT, stdio });
  // From a terminal the child receives SIGINT as well and handles it; this program waits for it.
  const ignore = () => undefined;
  const forward = (signal) => child.kill(signal);
  process.on('SIGINT', ignore).on('SIGTERM', forward);
  try {
    return await new Promise((done, fail) => {
      child.once('error', fail);
      child.once('close', (code, signal) => done(code ?? 128 + (constants.signals[signal] ?? 0)));
    });
  } finally {
    process.off('SIGINT', ignore).off('SIGTERM', forward);
  }
}

/** Runs a preparing step, its output on stderr; ends this program when it fails. */
async function prepare(name, command) {
  const code = await run(command, ['ignore', 2, 2]);
  if (code === 0) return;
  say(`bootstrap: ${name} failed with exit code ${code}; see above.`);
  process.exit(code);
}

// --- packages ----------------------------------------------------------------------------------------------

async function installPackages() {
  const lock = readFileSync(at('package-lock.json'), 'utf8');
  const stamp = modules('.sparsevila-lock');
  const wanted = hashOf(lock);
  if (readIfThere(stamp) === wanted && haveFolders(lock)) return;
  if (!isInstalled(lock)) {
    say('installing packages (npm ci)');
    // npm's own path where npm has started us, so that the same npm and Node are used.
    const npm = process.env.npm_execpath?.endsWith('.js') ? [process.execPath, process.env.npm_execpath] : ['npm'];
    // Independent of NODE_ENV and npm's settings: building needs the development packages, and no package's script may run.
    await prepare('npm ci', [
      ...npm,
      'ci',
      '--include=dev',
      '--include=optional',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
    ]);
  }
  // Replaced, not overwritten: a copy of node_modules that consists of hard links keeps a stamp of its own.
  rmSync(stamp, { force: true });
  writeFileSync(stamp, wanted);
}

/** Whether the packages that every machine gets have their folders. */
function haveFolders(lock) {
  const packages = Object.entries(JSON.parse(lock).packages);
  return packages.every(([path, { optional, peer }]) => path === '' || optional || peer || existsSync(at(path)));
}

/** Whether node_modules agrees with the lock file: `npm install` may have been run by hand. */
function isInstalled(lock) {
  const hidden = readIfThere(modules('.package-lock.json'));
  if (hidden === undefined || !haveFolders(lock)) return false;
  const installed = JSON.parse(hidden).packages;
  return Object.entries(JSON.parse(lock).packages).every(([path, { version, optional }]) => {
    // The root has no path; optional packages for other machines are rightly absent.
    const found = installed[path]?.version;
    return path === '' || found === version || (optional === true && found === undefined);
  });
}

// --- TypeScript --------------------------------------------------------------------------------------------

function filesIn(folder) {
  if (!existsSync(at(folder))) return [];
  const entries = readdirSync(at(folder), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

async function compile() {
  const sources = SOURCE_FOLDERS.flatMap(filesIn).filter((path) => path.endsWith('.ts'));
  const inputs = [at('tsconfig.json'), at('package-lock.json'), ...sources];
  const wanted = hashOf(...inputs.flatMap((path) => [path.slice(ROOT.length), readFileSync(path)]));
  const stamp = at('dist', '.sources');
  if (readIfThere(stamp) === wanted) return;
  say('compiling TypeScript');
  removeOrphans();
  await prepare('tsc', [modules('.bin/tsc'), '-p', ROOT]);
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, wanted);
}

/** Removes the outputs of deleted sources, so that no spec of another branch is run. */
function removeOrphans() {
  for (const path of SOURCE_FOLDERS.flatMap((folder) => filesIn(join('dist', folder)))) {
    const source = path.replace(at('dist'), ROOT).replace(OUTPUT, '.ts');
    if (OUTPUT.test(path) && !existsSync(source)) rmSync(path);
  }
}

// --- lint --------------------------------------------------------------------------------------------------

const PARSE = 'import ast, sys\nfor path in sys.argv[1:]: ast.parse(open(path, encoding="utf-8").read(), path)';

/** C++ and CUDA sources: every folder that holds any. */
const nativeSources = () =>
  ['native', 'spec/native', 'testing/cuda'].flatMap(filesIn).filter((path) => /\.(cc|h|inl|def|cu|cuh)$/.test(path));

/** Runs clang-format over the C++ and CUDA sources. The package has a binary for x64 only: elsewhere they stay unchecked. */
async function clangFormat(...options) {
  if (process.arch !== 'x64') return say(`clang-format has no binary for ${process.arch}: C++ is left unchecked`);
  const program = modules('clang-format/bin/linux_x64/clang-format');
  await prepare('clang-format', [program, ...options, ...nativeSources()]);
}

/** Rewrites sources in the layout that `lint` checks. */
async function format() {
  await prepare('biome', [modules('.bin/biome'), 'check', '--write', ROOT]);
  await clangFormat('-i');
}

/** TypeScript, JavaScript and JSON by biome; C++ and CUDA by clang-format; the syntax of Python and of shell scripts. */
async function lint() {
  const scripts = filesIn('scripts');
  const python = scripts.filter((path) => path.endsWith('.py'));
  const shell = [at('.ci/run'), ...scripts.filter((path) => path.endsWith('.sh'))];
  say('checking TypeScript, C++, Python and shell scripts (npm run format repairs formatting)');
  await prepare('biome', [modules('.bin/biome'), 'check', '--error-on-warnings', ROOT]);
  await clangFormat('--dry-run', '-Werror');
  await prepare('the syntax check of Python', ['python3', '-c', PARSE, ...python]);
  for (const path of shell) await prepare(`bash -n ${path}`, ['bash', '-n', path]);
}

// --- runtime -----------------------------------------------------------------------------------------------

const load = (path) => import(pathToFileURL(at('dist/src/runtime', path)).href);

async function setUp(standin) {
  const { setup } = await load('setup.js');
  const { progressReporter } = await load('progress.js');
  const reporter = progressReporter();
  const controller = new AbortController();
  const abort = () => controller.abort();
  process.on('SIGINT', abort).on('SIGTERM', abort);
  try {
    const { gpuFailure } = await setup({ signal: controller.signal, onProgress: reporter, standin });
    reporter.stop();
    if (gpuFailure !== undefined) say(`bootstrap: no GPU, everything runs on the CPU. ${gpuFailure}`);
  } catch (error) {
    reporter.stop();
    if (controller.signal.aborted) {
      say('bootstrap: set-up stopped; the next run continues.');
      process.exit(130);
    }
    say(`bootstrap: set-up failed. ${error?.code ? `${error.code}: ${error.message}` : error?.stack}`);
    process.exit(1);
  } finally {
    reporter.stop();
    process.off('SIGINT', abort).off('SIGTERM', abort);
  }
}

// --- all of it ---------------------------------------------------------------------------------------------

const [name, ...args] = process.argv.slice(2);
const job = Object.hasOwn(JOBS, name ?? '') ? JOBS[name](args) : undefined;
if (job === undefined) {
  say(`bootstrap: expected a job (${Object.keys(JOBS).join(', ')}) but received '${name ?? ''}'.`);
  process.exit(2);
}
await installPackages();
await compile();
if (job.format) await format();
if (job.lint) await lint();
if (job.setup) await setUp(job.standin === true);
if (job.command !== undefined) {
  // Set in the real environment, because jest gives its specs a copy that TensorFlow does not see.
  const { tensorflowDefaults } = await load('machine.js');
  for (const [variable, value] of Object.entries(tensorflowDefaults())) process.env[variable] ??= value;
  // Specs run the processor's kernels on every machine; specs of a device start a process on it.
  if (name === 'test') process.env.SPARSEVILA_DEVICE ??= 'cpu';
  process.exitCode = await run(job.command, 'inherit');
}
