// Compiles a folder with CMake into the cache, with progress and a log that is kept after a failure. Does not know what is compiled.

import { readdirSync, statSync } from 'node:fs';
import { copyFile, mkdir, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { SparseVilaError } from '../errors';
import { isFolder } from '../files';
import { fullDiskIn } from './atomic';
import { inBuildTree } from './build_tree';
import { cores } from './machine';
import { cacheFolder, type Environment } from './paths';
import { findCompiler, findProgram, type RunResult, run } from './process';
import { type SourceSet, sourceHashes } from './sources';
import type { FetchOptions } from './wheel';

export interface CmakeTools {
  readonly cmake: string;
  readonly compiler: string;
}

export interface CmakeBuild {
  /** The name of the build for progress and errors: `native modules`. */
  readonly name: string;
  /** The folder of CMakeLists.txt. */
  readonly folder: string;
  readonly tools: CmakeTools;
  /** Variables for CMakeLists.txt. */
  readonly definitions: Readonly<Record<string, string>>;
  /** The inputs of a kept build tree, besides the clone, such as the compilers' versions. */
  readonly inputs: readonly string[];
  readonly sources: SourceSet;
  /** The files to keep of what was built. */
  readonly products: readonly string[];
}

/** Checks for the programs that compiling needs. Throws `ERR_NO_COMPILER` naming what to install. */
export function requireCmake(env: Environment = process.env): CmakeTools {
  const compiler = findCompiler(env);
  const cmake = findProgram(['cmake'], env);
  if (compiler !== undefined && cmake !== undefined) return { cmake, compiler };
  throw new SparseVilaError(
    'ERR_NO_COMPILER',
    `Expected a C++17 compiler and CMake ≥ 3.16 in PATH but found ${compiler ?? 'no c++, g++ or clang++'} and ` +
      `${cmake ?? 'no cmake'}. Install them (Debian, Ubuntu: \`apt install g++ make cmake\`; Fedora: ` +
      '`dnf install gcc-c++ make cmake`; macOS: `xcode-select --install`, `brew install cmake`) and run set-up again.',
  );
}

/** The newest build in the cache with this name and key, whichever compiler made it: `<name>-<key>-<8 hex digits>`. */
export function findBuild(name: string, key: string, env: Environment = process.env): string | undefined {
  const cache = cacheFolder(env);
  if (!isFolder(cache)) return undefined;
  const pattern = new RegExp(`^${name}-${key}-[0-9a-f]{8}$`);
  const folders = readdirSync(cache)
    .filter((entry) => pattern.test(entry))
    .map((entry) => join(cache, entry));
  // A build that is being removed has no modification time.
  const time = (folder: string): number => statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return folders.filter(isFolder).sort((a, b) => time(b) - time(a))[0];
}

/** The path of the log of a failed build of `target`. */
export function buildLog(target: string): string {
  return `${target.replace(/\.tmp-.*$/, '')}.log`;
}

/**
 * Builds into the folder `target`, which is made. Throws `ERR_COMPILE` with the compiler's last lines, and
 * `ERR_SOURCES_CHANGED` if the sources change while they are compiled.
 */
export async function buildWithCmake(target: string, build: CmakeBuild, options: FetchOptions): Promise<void> {
  const { cmake, compiler } = build.tools;
  const cache = cacheFolder(options.env);
  await mkdir(target, { recursive: true });
  const sources = sourceHashes(build.sources);
  const place = { cache, inputs: build.inputs, sources, temporary: join(target, 'build'), signal: options.signal };
  await inBuildTree(place, async (tree) => {
    const definitions = { CMAKE_BUILD_TYPE: 'Release', CMAKE_CXX_COMPILER: compiler, ...build.definitions };
    const configure = [
      ...['-S', build.folder, '-B', tree],
      ...Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`),
    ];
    const calls = [configure, ['--build', tree, '--parallel', String(cores())]];
    await call(cmake, calls, buildLog(target), build.name, options);
    for (const name of build.products) await copyFile(join(tree, name), join(target, basename(name)));
  });
  if (JSON.stringify(sourceHashes(build.sources)) === JSON.stringify(sources)) return;
  throw new SparseVilaError(
    'ERR_SOURCES_CHANGED',
    `Expected ${dirname(build.folder)} to stay as it is while it is compiled but it changed. Run set-up again.`,
  );
}

/** Calls cmake with each of the argument lists. Its output goes to `log`, which stays when it fails. */
async function call(
  cmake: string,
  calls: readonly (readonly string[])[],
  log: string,
  name: string,
  options: FetchOptions,
): Promise<void> {
  const report = (done: number) => options.onProgress?.({ step: `compile ${name}`, done, total: 100 });
  const onLine = (line: string) => {
    const done = percentOf(line);
    if (done !== undefined) report(Math.min(done, 99));
  };
  await rm(log, { force: true });
  report(0);
  const env = options.env ?? {};
  for (const args of calls) {
    const result = await run(cmake, args, { signal: options.signal, onLine, log, env });
    if (result.code !== 0) throw fullDiskIn(result.tail, dirname(log)) ?? compileError(name, result, log);
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

function compileError(name: string, result: RunResult, log: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_COMPILE',
    `Expected the ${name} to compile but it failed. The last lines:\n${result.tail.join('\n')}\nAll of it: ${log}`,
  );
}
