// Starts the servers of queues for specs and soak tests, on free ports of this machine and in a temporary folder.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chownSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Server {
  readonly url: string;
  stop(): Promise<void>;
}

/** The path of a program of Debian's packages; undefined if it is not installed. */
function programOf(name: string): string | undefined {
  const versions = '/usr/lib/postgresql';
  const found = spawnable('sh', ['-c', `command -v ${name}`]);
  if (found !== undefined) return found;
  try {
    const folders = readdirSync(versions).map((version) => join(versions, version, 'bin'));
    return folders.map((folder) => join(folder, name)).find((path) => spawnable(path, ['--version']) !== undefined);
  } catch {
    return undefined;
  }
}

function spawnable(program: string, args: readonly string[]): string | undefined {
  try {
    return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return undefined;
  }
}

/** The servers that are installed; specs of the others are skipped. */
export const INSTALLED = {
  redis: programOf('redis-server') !== undefined,
  postgres: programOf('initdb') !== undefined && programOf('postgres') !== undefined,
};

function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const server = createServer().once('error', fail);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => done(port));
    });
  });
}

export async function redisServer(): Promise<Server> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-redis-'));
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder];
  const child = spawn(programOf('redis-server') as string, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  await lineOf(child, 'stdout', /Ready to accept connections/);
  return { url: `redis://127.0.0.1:${port}`, stop: () => ended(child, folder) };
}

export async function postgresServer(): Promise<Server> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'sparsevila-postgres-'));
  const who = userOf();
  if (who.uid !== undefined) chownSync(folder, who.uid, who.gid);
  const data = join(folder, 'data');
  const initdb = programOf('initdb') as string;
  execFileSync(initdb, ['-D', data, '-U', 'jobs', '-A', 'trust', '--no-sync'], {
    stdio: 'ignore',
    cwd: folder,
    ...who,
  });
  const settings = ['fsync=off', 'listen_addresses=127.0.0.1', `unix_socket_directories=${folder}`];
  const args = ['-D', data, '-p', String(port), ...settings.flatMap((one) => ['-c', one])];
  const options = { stdio: ['ignore', 'ignore', 'pipe'] as ('ignore' | 'pipe')[], cwd: folder, ...who };
  const child = spawn(programOf('postgres') as string, args, options);
  await lineOf(child, 'stderr', /ready to accept connections/);
  return { url: `postgres://jobs@127.0.0.1:${port}/postgres`, stop: () => ended(child, folder) };
}

/** Postgres refuses to run as root; its package makes a user. */
function userOf(): { uid?: number; gid: number } {
  const gid = process.getgid?.() ?? 0;
  if (process.getuid?.() !== 0) return { gid };
  const id = (flag: string): number => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

function lineOf(child: ChildProcess, stream: 'stdout' | 'stderr', wanted: RegExp): Promise<void> {
  let text = '';
  return new Promise((done, fail) => {
    child[stream]?.on('data', (piece: Buffer) => {
      text += piece;
      if (wanted.test(text)) done();
    });
    child.once('exit', (code) => fail(new Error(`ended with ${code}: ${text}`)));
  });
}

async function ended(child: ChildProcess, folder: string): Promise<void> {
  const exit = new Promise((done) => child.once('exit', done));
  child.kill('SIGTERM');
  await exit;
  rmSync(folder, { recursive: true, force: true });
}
