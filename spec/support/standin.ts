// Builds a program of spec/native with the stand-in for CUDA, so that kernels run where there is no GPU. Knows no kernel.

import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageFolder } from '../../src/runtime/paths';
import { findCompiler, findProgram } from '../../src/runtime/process';

const compile = promisify(execFile);

export interface Result {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Program {
  /** Runs the program to its end; `env` is added to this process's environment, in which SPARSEVILA_STANDIN is unset. */
  run(args?: readonly string[], env?: Readonly<Record<string, string>>): Result;
  remove(): void;
}

/** The C++ compiler. Specs that need one fail without it, since set-up needs one as well. */
export function requireCompiler(): string {
  const compiler = findCompiler(process.env);
  if (compiler === undefined) throw new Error('Expected a C++ compiler in PATH. Install g++ or clang++.');
  return compiler;
}

/** The program that lists the symbols of an object file; comes with every compiler. */
export function requireNm(): string {
  const nm = findProgram(['nm', 'llvm-nm'], process.env);
  if (nm === undefined) throw new Error('Expected nm in PATH. Install binutils or llvm.');
  return nm;
}

/** Compiles `sources` (paths in the package) with testing/cuda into a program. */
export async function buildOnStandin(
  sources: readonly string[],
  { include = [], link = [] }: { include?: readonly string[]; link?: readonly string[] } = {},
): Promise<Program> {
  const compiler = requireCompiler();
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-standin-'));
  const path = (name: string): string => join(packageFolder(), name);
  const standin = readdirSync(path('testing/cuda')).filter((name) => name.endsWith('.cc'));
  const all = [...sources, ...standin.map((name) => `testing/cuda/${name}`)];
  // The program is not optimized, because the compiler would take longer than the program would gain.
  const flags = [
    '-std=c++17',
    '-O0',
    '-ffp-contract=off',
    '-pthread',
    '-DSV_STANDIN',
    `-I${path('native')}`,
    `-I${path('testing/cuda')}`,
  ];
  const includes = include.flatMap((name) => ['-isystem', name]);
  const object = (index: number): string => join(folder, `${index}.o`);
  const one = (source: string, index: number): Promise<unknown> =>
    compile(compiler, [...flags, ...includes, '-x', 'c++', '-c', path(source), '-o', object(index)], {
      maxBuffer: 1 << 24,
    });
  const remove = (): void => rmSync(folder, { recursive: true });
  try {
    for (let i = 0; i < all.length; i += 2)
      await Promise.all(all.slice(i, i + 2).map((source, j) => one(source, i + j)));
    await compile(compiler, ['-pthread', ...all.map((_, i) => object(i)), '-o', join(folder, 'program'), ...link]);
  } catch (error) {
    remove();
    throw error;
  }
  const run = (args: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Result => {
    const all = { ...process.env, SPARSEVILA_STANDIN: '', ...env };
    return spawnSync(join(folder, 'program'), args, { env: all, encoding: 'utf8', maxBuffer: 1 << 26 });
  };
  return { run, remove };
}

/** Builds such a program, runs it once and returns what it prints. One that fails is an error with its own words in it. */
export async function runOnStandin(sources: readonly string[], settings = ''): Promise<string> {
  const program = await buildOnStandin(sources);
  try {
    const { status, signal, stdout, stderr } = program.run([], { SPARSEVILA_STANDIN: settings });
    if (status !== 0) throw new Error(`The program ended with ${signal ?? status}.\n${stdout}${stderr}`);
    return stdout;
  } finally {
    program.remove();
  }
}
