// Compiles the modules that Node loads into the cache, under a name that depends on their sources, so that equal sources are compiled once per
// machine. Knows no op and no kernel: it uses globs.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SparseVilaError } from '../errors';
import { resolvePackage } from '../packages';
import { installOnce } from './atomic';
import { buildWithCmake, type CmakeTools, findBuild, requireCmake } from './cmake';
import { ENGINE_PACKAGE, ENGINE_VERSION, enginePackage } from './engine';
import type { Libtensorflow } from './libtensorflow';
import { cacheFolder, type Environment, packageFolder } from './paths';
import { findCompiler, versionLine } from './process';
import { type SourceSet, sourceKey } from './sources';
import type { FetchOptions } from './wheel';

export interface NativeModules {
  readonly folder: string;
  /** tfjs-node-gpu's binding. */
  readonly tfjsBinding: string;
  /** Our ops and N-API functions. */
  readonly addon: string;
  /** Loads libtensorflow without its log output; has to be required before the others. */
  readonly preload: string;
}

const TFJS_BINDING = 'tfjs_binding.node';
const ADDON = 'sparsevila.node';
const PRELOAD = 'preload.node';
const HEADERS = 'node-api-headers/package.json';

/** The inputs of native/CMakeLists.txt. Of the device libraries' folders only the included headers. */
const SOURCES: SourceSet = { roots: /^(CMakeLists\.txt|[^/]+\.cc|(kernels|ops)\/[^/]+\.cc)$/ };

/**
 * A hash of all that determines the native modules, except the compiler: sources, libtensorflow's folder,
 * the binding's and headers' versions, the processor. `native` is the sources' folder.
 */
export function nativeKey(libtensorflow: Libtensorflow, native: string = join(packageFolder(), 'native')): string {
  const inputs = [
    `${ENGINE_PACKAGE}/package.json ${ENGINE_VERSION}`,
    `${HEADERS} ${versionOf(HEADERS)}`,
    ...[process.platform, process.arch, libtensorflow.lib, libtensorflow.include],
  ];
  return sourceKey(SOURCES, inputs, native);
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
  const folder = findBuild('native', nativeKey(libtensorflow), env);
  return folder === undefined ? undefined : modulesIn(folder);
}

function modulesIn(folder: string): NativeModules {
  return {
    folder,
    tfjsBinding: join(folder, TFJS_BINDING),
    addon: join(folder, ADDON),
    preload: join(folder, PRELOAD),
  };
}

/** Compiler flags of the kernel files; each file runs only on processors that support them. */
const LEVEL_FLAGS: Readonly<Record<string, readonly string[]>> = {
  x64: ['-mavx512bf16', '-mavx512vnni', '-mamx-tile', '-mamx-int8', '-mamx-bf16'],
  arm64: ['-march=armv8.2-a+dotprod+i8mm+bf16'],
};

/** Why `compiler` cannot compile the native modules, found by compiling an empty program that includes <vector>; undefined if it can. */
export function compilerProblem(compiler: string, arch: string = process.arch): string | undefined {
  const flags = [
    '-std=c++17',
    ...(LEVEL_FLAGS[arch] ?? []),
    '-fsyntax-only',
    '-include',
    'vector',
    '-x',
    'c++',
    '/dev/null',
  ];
  const result = spawnSync(compiler, flags, { encoding: 'utf8', timeout: 60_000 });
  if (result.status === 0) return undefined;
  return (result.error?.message ?? result.stderr).trim().split('\n', 1)[0];
}

/** @throws SparseVilaError `ERR_NO_COMPILER` */
export function requireNativeTools(env: Environment = process.env): CmakeTools {
  const tools = requireCmake(env);
  const problem = compilerProblem(tools.compiler);
  if (problem === undefined) return tools;
  throw new SparseVilaError(
    'ERR_NO_COMPILER',
    `Expected a compiler that knows C++17 and, on x86-64, AMX but ${tools.compiler} says: ${problem}. Install GCC ≥ 11 or ` +
      'Clang ≥ 13 with its standard library (Debian, Ubuntu: `apt install g++`; macOS: `xcode-select --install`), name it in CXX, and run ' +
      'set-up again.',
  );
}

/** Like `findNative`, but compiles if this compiler has not compiled these sources yet. */
export async function ensureNative(
  libtensorflow: Libtensorflow,
  engine: string,
  options: FetchOptions = {},
): Promise<NativeModules> {
  const env = options.env ?? process.env;
  const found = findNative(libtensorflow, env);
  if (found !== undefined && findCompiler(env) === undefined) return found;
  const tools = requireNativeTools(env);
  const tfjsNode = enginePackage(engine);
  const { lib, include } = libtensorflow;
  const compilerVersion = `${versionLine(tools.compiler)}`;
  const version = createHash('sha256').update(compilerVersion).digest('hex').slice(0, 8);
  const folder = join(cacheFolder(env), `native-${nativeKey(libtensorflow)}-${version}`);
  const build = {
    name: 'native modules',
    folder: join(packageFolder(), 'native'),
    tools,
    definitions: {
      TENSORFLOW_LIB: lib,
      TENSORFLOW_INCLUDE: include,
      NODE_API_INCLUDE: join(dirname(resolvePackage(HEADERS)), 'include'),
      TFJS_NODE: tfjsNode,
    },
    inputs: [tools.compiler, compilerVersion, lib, tfjsNode],
    sources: SOURCES,
    products: [TFJS_BINDING, ADDON, PRELOAD],
  };
  await installOnce(folder, (temporary) => buildWithCmake(temporary, build, options));
  return modulesIn(folder);
}
