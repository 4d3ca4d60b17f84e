// Runs other programs: pip, cmake, the compiler. Their output goes to a log; the caller receives lines. Does not know what they do.

import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, createWriteStream, statSync, type WriteStream } from 'node:fs';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { onAbort } from '../abort';
import { SparseVilaError } from '../errors';
import { writeError } from './atomic';
import type { Environment } from './paths';

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Environment;
  readonly signal?: AbortSignal | undefined;
  /** Called with every line of stdout and stderr. */
  readonly onLine?: (line: string) => void;
  /** All output is appended to this file. */
  readonly log?: string;
}

export interface RunResult {
  readonly code: number;
  /** The last lines of stdout and stderr together, at most 40. */
  readonly tail: readonly string[];
}

const TAIL_LINES = 40;

/** Runs a program to its end. Rejects when it cannot be started, with the signal's reason when aborted, or when the log cannot be written. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  options.signal?.throwIfAborted();
  const tail: string[] = [];
  const log = options.log === undefined ? undefined : createWriteStream(options.log, { flags: 'a' });
  let logError: unknown;
  log?.on('error', (error) => {
    logError = writeError(error, String(options.log));
    endGroup(child.pid);
  });
  log?.write(`$ ${command} ${args.join(' ')}\n`);
  // A process group, so that aborting also ends the compilers that make has started.
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const abort = () => endGroup(child.pid);
  const forget = options.signal === undefined ? undefined : onAbort(options.signal, abort);
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      log?.write(`${line}\n`);
      tail.push(line);
      if (tail.length > TAIL_LINES) tail.shift();
      options.onLine?.(line);
    });
  }
  try {
    const code = await new Promise<number>((done, fail) => {
      child.once('error', fail);
      child.once('close', (status) => done(status ?? 1));
    });
    options.signal?.throwIfAborted();
    await closed(log);
    if (logError !== undefined) throw logError;
    return { code, tail };
  } finally {
    forget?.();
    await closed(log);
  }
}

/** Ends a log, whether it can be written or not. */
async function closed(log: WriteStream | undefined): Promise<void> {
  if (log === undefined || log.closed) return;
  await new Promise<void>((done) => {
    log.once('close', done);
    log.end();
  });
}

function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGTERM');
  } catch {
    // it has ended by itself
  }
}

/** The full path of the first of `names` that is in PATH and executable; undefined when none is. */
export function findProgram(names: readonly string[], env: Environment = process.env): string | undefined {
  const folders = (env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  for (const name of names) {
    for (const path of name.includes('/') ? [name] : folders.map((folder) => join(folder, name))) {
      if (isExecutable(path)) return path;
    }
  }
  return undefined;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** The first line that `program --version` prints; undefined if it fails. */
export function versionLine(program: string, args: readonly string[] = ['--version']): string | undefined {
  const result = spawnSync(program, args, { encoding: 'utf8', timeout: 60_000 });
  if (result.error !== undefined || result.status !== 0) return undefined;
  return `${result.stdout}\n${result.stderr}`.trim().split('\n')[0];
}

/** The C++ compiler for CMake: `CXX`, else c++, g++, clang++. */
export function findCompiler(env: Environment = process.env): string | undefined {
  return findProgram([...(env.CXX ? [env.CXX] : []), 'c++', 'g++', 'clang++'], env);
}

/** The command for pip: the first of `python3 -m pip`, `python -m pip`, `pip3` and `pip` that works. */
export function findPip(env: Environment = process.env): readonly string[] {
  for (const [name, ...args] of [['python3', '-m', 'pip'], ['python', '-m', 'pip'], ['pip3'], ['pip']] as const) {
    const program = findProgram([name], env);
    if (program !== undefined && versionLine(program, [...args, '--version']) !== undefined) return [program, ...args];
  }
  throw new SparseVilaError(
    'ERR_NO_PIP',
    'Expected Python with pip, to fetch TensorFlow, but found neither `python3 -m pip` nor `pip` in PATH. ' +
      'Install python3-pip, or point SPARSEVILA_LIBTENSORFLOW to a folder that has libtensorflow.',
  );
}
