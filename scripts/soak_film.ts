// Soak test of films: three questions about a film of 360 frames and about one of 3,600, with as many tokens kept of both, each in a process of its own;
// then aborts at points all over a turn.
//   node dist/scripts/soak_film.js [frames] [times as many] [aborts]
// Prints one line of JSON: resident memory at its peak and after each question, their ratio, and the longest time from an abort to its error.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { load, PACKAGED_FILM_MODEL, type Session, sparseVila } from '../src/index';

const QUESTIONS = ['What is at b4 at the start?', 'Which things are there?', 'What changes?'];
/** Tokens of a frame of the packaged model, and those that are kept of a frame of the short film. */
const [TOKENS, KEPT] = [100, 20];

/** A field of /proc/self/status in MB. `VmHWM`: the maximum so far. */
function resident(field: 'VmRSS' | 'VmHWM'): number {
  const line = new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'));
  return Math.round(Number(line?.[1]) / 1024);
}

const openSession = async (kept: number): Promise<{ chat: Session; close: () => void }> => {
  const model = await load(PACKAGED_FILM_MODEL);
  const method = sparseVila({ prefillSparsity: 1 - kept / TOKENS, decodeSparsity: 0.9, positions: 'compact' });
  const chat = model.session({ method });
  const close = (): void => {
    chat.dispose();
    model.dispose();
  };
  return { chat, close };
};

async function measure(file: string, frames: number, kept: number): Promise<object> {
  const { chat, close } = await openSession(kept);
  const loaded = resident('VmRSS');
  const after: number[] = [];
  const seconds: number[] = [];
  let rows = 0;
  for (const [i, question] of QUESTIONS.entries()) {
    const begin = performance.now();
    const videos = i === 0 ? [{ file, fps: 25, maxFrames: frames }] : [];
    const answer = chat.ask(question, { videos, maxTokens: 8, temperature: 0 });
    await answer;
    rows = answer.stats?.tokens.visualKept ?? 0;
    after.push(resident('VmRSS'));
    seconds.push(Math.round((performance.now() - begin) / 100) / 10);
  }
  close();
  return { frames, rows, loaded, after, peak: resident('VmHWM'), seconds };
}

/** Processes whose parent is this one. */
function children(): number {
  return readdirSync('/proc').filter((pid) => {
    try {
      return (
        /^\d+$/.test(pid) &&
        readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[1] === String(process.pid)
      );
    } catch {
      return false;
    }
  }).length;
}

/** Milliseconds from each abort, at times all over a turn, to its error. */
async function aborted(file: string, frames: number, count: number): Promise<object> {
  const { chat, close } = await openSession(KEPT);
  const ask = (signal?: AbortSignal): Promise<string> =>
    chat
      .ask('What changes?', { videos: [{ file, fps: 25, maxFrames: frames }], maxTokens: 8, ...(signal && { signal }) })
      .text();
  const begin = performance.now();
  const start = chat.mark();
  await ask();
  const whole = performance.now() - begin;
  chat.rewind(start);
  const late: number[] = [];
  for (let i = 0; i < count; i++) {
    const controller = new AbortController();
    const asked = performance.now() + (whole * (i + 0.5)) / count;
    const timer = setTimeout(() => controller.abort(new Error('enough')), asked - performance.now());
    await ask(controller.signal).catch(() => late.push(Math.round(performance.now() - asked)));
    clearTimeout(timer);
    chat.rewind(start);
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  const left = children();
  close();
  return { aborts: late.length, longestMs: late.reduce((most, ms) => Math.max(most, ms), 0), left };
}

async function main([first = '360', times = '10', aborts = '12']: readonly string[]): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-soak-'));
  const file = join(folder, 'film.mp4');
  const [short, long] = [Number(first), Number(first) * Number(times)];
  const source = `testsrc=size=320x240:rate=25:duration=${long / 25}`;
  const encode = ['-pix_fmt', 'yuv420p', '-c:v', 'libx264', '-preset', 'ultrafast'];
  execFileSync('ffmpeg', ['-nostdin', '-v', 'error', '-y', '-f', 'lavfi', '-i', source, ...encode, file]);
  /** Each in a process of its own. */
  const run = (...args: readonly (string | number)[]): { peak?: number; after?: number[] } =>
    JSON.parse(execFileSync(process.execPath, [__filename, ...args.map(String)], { encoding: 'utf8' }));
  try {
    const few = run('measure', file, short, KEPT);
    const many = run('measure', file, long, KEPT / Number(times));
    const stop = run('abort', file, short, aborts);
    const ratio = Math.round((100 * (many.peak ?? 0)) / (few.peak ?? 1)) / 100;
    process.stdout.write(`${JSON.stringify({ few, many, ratio, ...stop })}\n`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const [command, file = '', frames, more] = process.argv.slice(2);
const work =
  command === 'measure'
    ? measure(file, Number(frames), Number(more))
    : command === 'abort'
      ? aborted(file, Number(frames), Number(more))
      : main(process.argv.slice(2));
work.then(
  (result) => result && process.stdout.write(`${JSON.stringify(result)}\n`),
  (error: unknown) => {
    process.stderr.write(`soak_film: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exitCode = 1;
  },
);
