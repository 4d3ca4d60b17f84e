// Builds a program of spec/native with the stand-in for CUDA, so that kernels run where there is no GPU. Knows no kernel.

import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageFolder } from '../../src/runtime/paths';
import { findCompiler } from '../../src/runtime/process';

const run = promisify(execFile);

/**
 * Compiles `sources` (paths in the package) and native/standin, runs the program and returns what it prints. Undefined, with a
 * warning, where there is no compiler or no Linux. A program that fails is an error with its own words in it.
 */
export async function runOnStandin(sources: readonly string[], settings = ''): Promise<string | undefined> {
  const compiler = findCompiler(process.env);
  if (compiler === undefined || process.platform !== 'linux') {
    console.warn('Not checked: this needs a C++ compiler and Linux.');
    return undefined;
  }
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-standin-'));
  try {
    const path = (name: string): string => join(packageFolder(), name);
    const standin = readdirSync(path('native/standin')).filter((name) => name.endsWith('.cc'));
    const all = [...sources, ...standin.map((name) => `native/standin/${name}`)];
    // Not optimised: the compiler would take longer than the program gains.
    const flags = ['-std=c++17', '-O0', '-ffp-contract=off', '-pthread', '-DSV_STANDIN', '-x', 'c++'];
    const object = (index: number): string => join(folder, `${index}.o`);
    for (let i = 0; i < all.length; i += 2)
      await Promise.all(
        all
          .slice(i, i + 2)
          .map((source, j) =>
            run(compiler, [...flags, '-c', path(source), '-o', object(i + j)], { maxBuffer: 1 << 24 }),
          ),
      );
    await run(compiler, ['-pthread', ...all.map((_, i) => object(i)), '-o', join(folder, 'program')]);
    const env = { ...process.env, SPARSEVILA_STANDIN: settings };
    return (await run(join(folder, 'program'), [], { env, maxBuffer: 1 << 26 })).stdout;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
