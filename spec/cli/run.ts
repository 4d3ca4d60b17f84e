// Starts the command line as users do: as a child process; returns its output and how it ended.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { join, resolve } from 'node:path';

export const ROOT = resolve(__dirname, '../../..');
export const MAIN = join(ROOT, 'dist/src/cli/main.js');

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcessWithoutNullStreams;
  readonly ended: Promise<Ended>;
  /** Resolves once stdout and stderr together match; rejects when the child ends before. */
  shows(pattern: RegExp): Promise<void>;
}

export const picture = (n: number): string => join(ROOT, 'assets/calibration', `scene-${n}.png`);
export const brokenImage = (name: string): string => join(ROOT, 'spec/fixtures/image', name);

/** Greedy is off and the stop token is as likely as any: with this seed an answer has 2104 tokens, whatever was asked. */
export const ENDLESS = ['--temperature', '1e6', '--seed', '1211', '--max-tokens', '30000'];

/** Starts a script of the package, by default the CLI, with the variables of `env` besides those of this process. */
export function startCli(args: readonly string[], script = MAIN, cwd = ROOT, env: NodeJS.ProcessEnv = {}): Running {
  const child = spawn(process.execPath, [script, ...args], { cwd, env: { ...process.env, ...env } });
  let stdout = '';
  let stderr = '';
  const watchers = new Set<() => void>();
  const take = (chunk: string, add: (text: string) => void): void => {
    add(chunk);
    for (const look of [...watchers]) look();
  };
  child.stdout.setEncoding('utf8').on('data', (chunk: string) =>
    take(chunk, (text) => {
      stdout += text;
    }),
  );
  child.stderr.setEncoding('utf8').on('data', (chunk: string) =>
    take(chunk, (text) => {
      stderr += text;
    }),
  );
  const ended = new Promise<Ended>((done, fail) => {
    child.once('error', fail);
    child.once('close', (code, signal) => done({ code, signal, stdout, stderr }));
  });
  const shows = (pattern: RegExp): Promise<void> =>
    new Promise((done, fail) => {
      const look = (): void => {
        if (!pattern.test(stdout + stderr)) return;
        watchers.delete(look);
        done();
      };
      watchers.add(look);
      look();
      void ended.then(() => fail(new Error(`ended before ${pattern}: ${stdout}${stderr}`)), fail);
    });
  return { child, ended, shows };
}

/** Runs the CLI to its end with `input` on stdin. */
export function cli(args: readonly string[], input: string | Buffer = ''): Promise<Ended> {
  const { child, ended } = startCli(args);
  // A command that fails early closes its stdin.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  return ended;
}
