// Compiles the native modules with CMake into the cache, under a name that says what they were made from,
// so equal sources are compiled once per machine. Knows no op and no kernel: it globs.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { copyFile, mkdir, rm } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { SparseVilaError } from '../errors';
import { installOnce } from './atomic';
import { inBuildTree } from './build-tree';
import type { Libtensorflow } from './libtensorflow';
import { cores } from './machine';
import { cacheFolder, type Environment, packageFolder } from './paths';
import { findCompiler, findProgram, type RunResult, run, versionLine } from './process';
import type { FetchOptions } from './wheel';

export interface NativeModules {
  readonly folder: string;
  /** tfjs-node-gpu's binding. */
  readonly tfjsBinding: string;
  /** Our ops and N-API functions. */
  readonly addon: string;
  /** Loads libtensorflow without its chatter; to be required before the others. */
  readonly preload: string;
}

const TFJS_BINDING = 'tfjs_binding.node';
const ADDON = 'sparsevila.node';
const PRELOAD = 'preload.node';
/** Whatever its ending: a source that is left out is not compiled again when it changes. */
const SOURCE = /\.[a-z]+$/;

/** The folder of @tensorflow/tfjs-node-gpu, or undefined when it is not installed. */
export function tfjsNodeFolder(): string | undefined {
  try {
    return dirname(require.resolve('@tensorflow/tfjs-node-gpu/package.json'));
  } catch {
    return undefined;
  }
}

function requireTfjsNode(): string {
  const folder = tfjsNodeFolder();
  if (folder !== undefined) return folder;
  throw new SparseVilaError(
    'ERR_NO_TFJS_NODE',
    'Expected the package @tensorflow/tfjs-node-gpu 4.22.0 but it is not installed (npm drops it when its own install ' +
      'script fails). Run `npm install --ignore-scripts @tensorflow/tfjs-node-gpu@4.22.0`.',
  );
}

/**
 * A hash of all that determines the native modules, except the compiler: sources, libtensorflow's folder,
 * the binding's and headers' versions, the processor.
 */
export function nativeKey(libtensorflow: Libtensorflow): string {
  const hash = createHash('sha256');
  for (const [path, content] of Object.entries(sourceHashes()))
    hash.update(`${relative(packageFolder(), path)} ${content}\0`);
  const packages = ['@tensorflow/tfjs-node-gpu/package.json', 'node-api-headers/package.json'];
  for (const name of packages) hash.update(`${name} ${versionOf(name)}\0`);
  hash.update(`${process.platform} ${process.arch}\0${libtensorflow.lib}\0${libtensorflow.include}`);
  return hash.digest('hex').slice(0, 16);
}

/** The native sources' paths, sorted, and hashes of their content. */
function sourceHashes(): Record<string, string> {
  const folder = join(packageFolder(), 'native');
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => SOURCE.test(name));
  const hashOf = (name: string) =>
    createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex');
  return Object.fromEntries(names.sort().map((name) => [join(folder, name), hashOf(name)]));
}

function versionOf(packageJson: string): string {
  try {
    return String((JSON.parse(readFileSync(require.resolve(packageJson), 'utf8')) as { version?: unknown }).version);
  } catch {
    return 'none';
  }
}

/** The compiled modules for the present sources, whichever compiler made them; undefined when there are none. */
export function findNative(libtensorflow: Libtensorflow, env: Environment = process.env): NativeModules | undefined {
  const cache = cacheFolder(env);
  if (!existsSync(cache)) return undefined;
  const name = new RegExp(`^native-${nativeKey(libtensorflow)}-[0-9a-f]{8}$`);
  const folders = readdirSync(cache)
    .filter((entry) => name.test(entry))
    .map((entry) => join(cache, entry));
  const [newest] = folders.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
  return newest === undefined ? undefined : modulesIn(newest);
}

function modulesIn(folder: string): NativeModules {
  return {
    folder,
    tfjsBinding: join(folder, TFJS_BINDING),
    addon: join(folder, ADDON),
    preload: join(folder, PRELOAD),
  };
}

export interface BuildTools {
  readonly cmake: string;
  readonly compiler: string;
  readonly tfjsNode: string;
}

/** What compiling needs. Throws `ERR_NO_COMPILER` or `ERR_NO_TFJS_NODE` saying what to install. */
export function requireBuildTools(env: Environment = process.env): BuildTools {
  const compiler = findCompiler(env);
  const cmake = findProgram(['cmake'], env);
  if (compiler !== undefined && cmake !== undefined) return { cmake, compiler, tfjsNode: requireTfjsNode() };
  throw new SparseVilaError(
    'ERR_NO_COMPILER',
    `Expected a C++17 compiler and CMake ≥ 3.16 in PATH but found ${compiler ?? 'no c++, g++ or clang++'} and ` +
      `${cmake ?? 'no cmake'}. Install them (Debian, Ubuntu: \`apt install g++ make cmake\`; Fedora: ` +
      '`dnf install gcc-c++ make cmake`) and run set-up again.',
  );
}

/** Like `findNative`, and compiles when this compiler has not compiled these sources yet. */
export async function ensureNative(libtensorflow: Libtensorflow, options: FetchOptions = {}): Promise<NativeModules> {
  const env = options.env ?? process.env;
  const found = findNative(libtensorflow, env);
  if (found !== undefined && findCompiler(env) === undefined) return found;
  const tools = requireBuildTools(env);
  const version = createHash('sha256')
    .update(`${versionLine(tools.compiler)}`)
    .digest('hex')
    .slice(0, 8);
  const folder = join(cacheFolder(env), `native-${nativeKey(libtensorflow)}-${version}`);
  await installOnce(folder, (temporary) => build(temporary, tools, libtensorflow, options));
  return modulesIn(folder);
}

async function build(
  target: string,
  tools: BuildTools,
  libtensorflow: Libtensorflow,
  options: FetchOptions,
): Promise<void> {
  const { compiler, tfjsNode } = tools;
  const inputs = [compiler, `${versionLine(compiler)}`, libtensorflow.lib, tfjsNode];
  const cache = cacheFolder(options.env);
  await mkdir(target, { recursive: true });
  const sources = sourceHashes();
  const place = { cache, inputs, sources, temporary: join(target, 'build'), signal: options.signal };
  await inBuildTree(place, async (tree) => {
    const log = `${target.replace(/\.tmp-.*$/, '')}.log`;
    const configure = ['-S', join(packageFolder(), 'native'), '-B', tree, ...definitions(tools, libtensorflow)];
    await compile(tools.cmake, [configure, ['--build', tree, '--parallel', String(cores())]], log, options);
    for (const name of [TFJS_BINDING, ADDON, PRELOAD]) await copyFile(join(tree, name), join(target, name));
  });
  if (JSON.stringify(sourceHashes()) === JSON.stringify(sources)) return;
  throw new SparseVilaError(
    'ERR_SOURCES_CHANGED',
    `Expected ${join(packageFolder(), 'native')} to stay as it is while it is compiled but it changed. Run set-up again.`,
  );
}

/** What native/CMakeLists.txt has to be told. */
function definitions({ compiler, tfjsNode }: BuildTools, { lib, include }: Libtensorflow): string[] {
  return [
    '-DCMAKE_BUILD_TYPE=Release',
    `-DCMAKE_CXX_COMPILER=${compiler}`,
    `-DTENSORFLOW_LIB=${lib}`,
    `-DTENSORFLOW_INCLUDE=${include}`,
    `-DNODE_API_INCLUDE=${join(dirname(require.resolve('node-api-headers/package.json')), 'include')}`,
    `-DTFJS_NODE=${tfjsNode}`,
  ];
}

/** Calls cmake with each of the argument lists. Its output goes to `log`, which stays when it fails. */
async function compile(
  cmake: string,
  calls: readonly (readonly string[])[],
  log: string,
  options: FetchOptions,
): Promise<void> {
  const report = (done: number) => options.onProgress?.({ step: 'compile native modules', done, total: 100 });
  const onLine = (line: string) => {
    const done = percentOf(line);
    if (done !== undefined) report(Math.min(done, 99));
  };
  await rm(log, { force: true });
  report(0);
  const env = options.env ?? {};
  for (const args of calls) {
    const result = await run(cmake, args, { signal: options.signal, onLine, log, env });
    if (result.code !== 0) throw compileError(result, log);
  }
  await rm(log, { force: true });
  report(100);
}

/** Progress in percent from a line of make (`[ 12%] Building …`) or ninja (`[3/25] Building …`). */
export function percentOf(line: string): number | undefined {
  const [, percent, done, total] = /^\[\s*(?:(\d+)%|(\d+)\/(\d+))\]/.exec(line) ?? [];
  if (percent !== undefined) return Number(percent);
  return done === undefined ? undefined : Math.floor((100 * Number(done)) / Number(total));
}

function compileError(result: RunResult, log: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_COMPILE',
    `Expected the native modules to compile but it failed. The last lines:\n${result.tail.join('\n')}\nAll of it: ${log}`,
  );
}
