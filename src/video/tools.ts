// ffmpeg and ffprobe of the PATH: found once, their version checked, run with piped output under limits of time. Does not know films.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { onAbort } from '../abort';
import { messageOf, SparseVilaError } from '../errors';
import { findProgram, versionLine } from '../runtime/process';

export interface Tools {
  readonly ffmpeg: string;
  readonly ffprobe: string;
  /** The version's first two numbers as one, 5.1 as 501; a build without a release number counts as new. */
  readonly version: number;
}

/** 4.2 (2019): the oldest whose options are all used here. */
const OLDEST = 402;
const NEWEST = 99_00;
const INSTALL = 'Install FFmpeg (apt-get install ffmpeg, or https://ffmpeg.org) so that both are in PATH';

const FOUND = new Map<string | undefined, Tools>();

/** @throws SparseVilaError ERR_VIDEO_TOOL if one of them is missing, does not run, or is too old */
export function findTools(env: Readonly<Record<string, string | undefined>> = process.env): Tools {
  const known = FOUND.get(env.PATH);
  if (known !== undefined) return known;
  const [ffmpeg, ffprobe] = ['ffmpeg', 'ffprobe'].map((name) => findProgram([name], env));
  if (ffmpeg === undefined || ffprobe === undefined) {
    const missing = [ffmpeg ?? 'ffmpeg', ffprobe ?? 'ffprobe'].filter((name) => name.startsWith('ff')).join(' and ');
    throw noTool(`found no ${missing}. ${INSTALL}, or pass the film as a list of frames.`);
  }
  const line = versionLine(ffmpeg, ['-version']);
  const [, major, minor] = /version n?(\d+)\.(\d+)/.exec(line ?? '') ?? [];
  const version = line === undefined ? 0 : major === undefined ? NEWEST : 100 * Number(major) + Number(minor);
  if (version < OLDEST) throw noTool(`found ${line ?? `${ffmpeg}, which does not run`}. ${INSTALL}.`);
  const tools = { ffmpeg, ffprobe, version };
  FOUND.set(env.PATH, tools);
  return tools;
}

function noTool(reason: string): SparseVilaError {
  return new SparseVilaError('ERR_VIDEO_TOOL', `Expected ffmpeg and ffprobe, of version 4.2 or later, but ${reason}`);
}

export interface ToolOptions {
  /** The film's name in errors. */
  readonly name: string;
  /** What is written to the program's standard input. */
  readonly input?: readonly Uint8Array[] | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds without output or progress after which it is ended; default 60 seconds. */
  readonly idleMs?: number | undefined;
  /** Milliseconds after which it is ended in any case; default 30 minutes. */
  readonly totalMs?: number | undefined;
}

export interface ToolRun {
  /** The pieces of its standard output. Leaving the loop ends the program; a failure throws after the last piece. */
  readonly pieces: AsyncIterable<Uint8Array>;
  /** The end of what it wrote to its standard error so far. */
  complaints(): string;
}

const [IDLE_MS, TOTAL_MS] = [60_000, 30 * 60_000];
const MOST_COMPLAINTS = 4000;
const CHECK_MS = 500;

/**
 * Runs a program. Its file descriptor 3 is for signs of progress (`-progress pipe:3`).
 * @param failed makes the error of a run that ends with a code other than 0, from its complaints
 */
export function runTool(
  program: string,
  args: readonly string[],
  options: ToolOptions,
  failed: (complaints: string) => SparseVilaError,
): ToolRun {
  let complaints = '';
  async function* pieces(): AsyncGenerator<Uint8Array> {
    const { signal, input, name } = options;
    signal?.throwIfAborted();
    const child = spawn(program, args, { stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', 'pipe'] });
    const watch = watched(child, options);
    const [output, errors] = [child.stdout as Readable, child.stderr as Readable];
    errors.on('data', (text: Buffer) => {
      complaints = (complaints + text.toString()).slice(-MOST_COMPLAINTS);
    });
    if (input !== undefined) feed(child.stdin as Writable, input);
    try {
      watch.wait(true);
      for await (const piece of output) {
        watch.wait(false);
        yield piece as Uint8Array;
        watch.wait(true);
      }
      const code = await watch.closed;
      signal?.throwIfAborted();
      if (watch.failure() !== undefined) throw watch.failure();
      if (code !== 0) throw failed(complaints);
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof SparseVilaError) throw error;
      throw new SparseVilaError('ERR_VIDEO_TOOL', `Expected to run ${program} for ${name} but ${messageOf(error)}.`, {
        cause: error,
      });
    } finally {
      watch.end();
    }
  }
  return { pieces: pieces(), complaints: () => complaints };
}

/** Ends a program when the signal aborts or a limit of time passes. */
function watched(child: ChildProcess, { name, signal, idleMs = IDLE_MS, totalMs = TOTAL_MS }: ToolOptions) {
  const begin = performance.now();
  let [last, isWaiting] = [begin, true];
  let failure: unknown;
  const closed = new Promise<number>((done) => {
    child.once('close', (code) => done(code ?? 1));
    child.once('error', (error) => {
      failure ??= error;
      // A program that did not start closes nothing.
      done(1);
    });
  });
  const kill = (): void => void child.kill('SIGKILL');
  const forget = signal && onAbort(signal, kill);
  const alive = (): void => {
    last = performance.now();
  };
  for (const stream of [child.stderr, child.stdio[3] as Readable | undefined]) stream?.on('data', alive);
  const timer = setInterval(() => {
    const now = performance.now();
    const isIdle = isWaiting && now - last > idleMs;
    if (!isIdle && now - begin < totalMs) return;
    failure ??= new SparseVilaError(
      'ERR_VIDEO_TIMEOUT',
      `Expected to read ${name} ${isIdle ? `but nothing came for ${idleMs / 1000} seconds` : `within ${totalMs / 60_000} minutes`}. ` +
        'Give a shorter segment (from, to) or fewer frames (maxFrames), or check the file.',
    );
    kill();
  }, CHECK_MS);
  timer.unref();
  return {
    closed,
    failure: () => failure,
    wait: (waiting: boolean): void => {
      alive();
      isWaiting = waiting;
    },
    end: (): void => {
      clearInterval(timer);
      forget?.();
      kill();
    },
  };
}

/** Writes pieces to a program that may stop reading before their end. */
function feed(stdin: Writable, pieces: readonly Uint8Array[]): void {
  stdin.on('error', () => undefined);
  for (const piece of pieces) stdin.write(piece);
  stdin.end();
}
