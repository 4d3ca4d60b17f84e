// A lock on a folder, among processes, containers and users. Node has no flock(2), so the lock is a record that each contender publishes
// before it looks for the records of others: of two contenders at least one sees the other, and a contender that sees a live record withdraws.
// Records have unique names that are never reused, so removing the record of a dead owner cannot affect a live one, which a single lock file
// with take-over cannot guarantee.
//
// A process id alone is not enough, because a new container reuses it at once. A record therefore also has the boot id, the pid namespace and
// the process's start time, which decide whether an owner in the same pid namespace is alive. For an owner in another namespace (another
// container, which may be gone) the kernel decides: each record has a Unix socket beside it on which its owner listens. The kernel closes the
// socket with the process, however that ends, and finds it by its inode, so the result is correct across pid and network namespaces that share
// a volume. (An abstract socket is visible in one network namespace only.) An owner on another machine, which exists only on network file
// systems, cannot be checked: it counts as alive, and the error names the file to remove.

import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statfsSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { codeOf, SparseVilaError } from '../errors';
import { isFolder, makeFolder, shownPath } from '../files';
import { writeError } from './atomic';

export interface Lock {
  /** True if the last owner died without releasing the lock, so that its files may be incomplete. */
  readonly wasAbandoned: boolean;
  /** Removes the record, and the folder if nothing else is in it. */
  release(): void;
}

interface Owner {
  /** The pid namespace, as numbered in `/proc`. */
  readonly pid: number;
  /** Clock ticks between boot and the start of the process; 0 without `/proc`. */
  readonly start: number;
  readonly pidNamespace: string;
  readonly boot: string;
  readonly host: string;
}

const RECORD = /^lock-[0-9a-f]{16}$/;
const LOCK_FILE = /^lock-[0-9a-f]{16}(\.sock|\.new)?$/;
/** Two contenders that start at the same moment may both withdraw; they wait for random times and try again. */
const ATTEMPTS = 12;
const LONGEST_WAIT_MS = 30;
/** An older record belongs to a holder, not to a contender that may still withdraw. */
const CONTENDING_MS = 1000;
const OLD_MS = 60_000;

/** Whether a file in a locked folder belongs to its lock. */
export const isLockFile = (name: string): boolean => LOCK_FILE.test(name);

/**
 * Locks `folder`, making it if necessary, until `release` or the end of the process.
 * @throws SparseVilaError `ERR_BUSY` naming the owner; `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`
 */
export function takeLock(folder: string): Lock {
  // Counted separately: a folder that vanishes once, after many withdrawals, is not a folder that cannot be made.
  for (let withdrawn = 0, vanished = 0; ; sleep(Math.random() * LONGEST_WAIT_MS)) {
    const taken = contend(folder, `lock-${randomBytes(8).toString('hex')}`);
    if (typeof taken === 'string') {
      vanished = 0;
      if (++withdrawn >= ATTEMPTS || isHolder(folder, taken)) throw busy(folder, taken);
    } else {
      if ('release' in taken) return taken;
      if (++vanished >= ATTEMPTS) throw taken.vanished;
    }
  }
}

/** The lock; or the name of a live record in the folder; or an error if the last holder removed the folder meanwhile. */
function contend(folder: string, name: string): Lock | string | { readonly vanished: unknown } {
  const record = join(folder, name);
  let server: Server | undefined;
  const withdraw = (): void => {
    server?.close();
    for (const file of [`${record}.sock`, `${record}.new`, record]) quietly(() => unlinkSync(file));
  };
  try {
    makeFolder(folder);
    server = listen(folder, `${name}.sock`);
    // Written to a temporary first, so that nobody reads a partial record.
    writeFileSync(`${record}.new`, JSON.stringify(self()), { flag: 'wx' });
    renameSync(`${record}.new`, record);
    const others = readdirSync(folder).filter((other) => RECORD.test(other) && other !== name);
    const alive = others.find((other) => isAlive(folder, other));
    if (alive !== undefined) {
      withdraw();
      return alive;
    }
    clean(folder, name, others);
    const release = (): void => {
      withdraw();
      removeIfEmpty(folder);
    };
    return { wasAbandoned: others.length > 0, release };
  } catch (error) {
    withdraw();
    removeIfEmpty(folder);
    const ours = writeError(error, folder);
    if (!['ENOENT', 'EEXIST'].includes(codeOf(error) ?? '')) throw ours;
    // Checked at once, because the folder may vanish.
    const stat = isFolder(dirname(folder)) ? lstatSync(folder, { throwIfNoEntry: false }) : undefined;
    const isRemoved = isFolder(dirname(folder)) && (stat?.isDirectory() ?? true);
    if (isRemoved) return { vanished: ours };
    throw ours;
  }
}

/** Removes the files of dead owners. A file without a record may belong to a contender about to publish, unless it is old. */
function clean(folder: string, name: string, dead: readonly string[]): void {
  for (const other of readdirSync(folder).filter((file) => isLockFile(file) && !file.startsWith(name))) {
    const path = join(folder, other);
    if (dead.includes(other.slice(0, name.length)) || ageOf(path) > OLD_MS) rmSync(path, { force: true });
  }
}

function isHolder(folder: string, name: string): boolean {
  return ageOf(join(folder, name)) > CONTENDING_MS;
}

/** Milliseconds since a file was written; 0 if it does not exist. */
function ageOf(path: string): number {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat === undefined ? 0 : Date.now() - stat.mtimeMs;
}

/** Removes the folder unless it contains files, or a contender that is about to take the lock. */
function removeIfEmpty(folder: string): void {
  quietly(() => rmdirSync(folder));
}

/** Removes a file. A failure does not matter: the record's owner is found dead after its process has ended. */
function quietly(remove: () => void): void {
  try {
    remove();
  } catch {
    // See above.
  }
}

let own: Owner | undefined;

/** The identity of this process for other processes. */
function self(): Owner {
  if (own !== undefined) return own;
  const { pid, start } = processAt('self') ?? { pid: process.pid, start: 0 };
  const boot = read(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
  own = { pid, start, pidNamespace: read(() => readlinkSync('/proc/self/ns/pid')), boot, host: hostname() };
  return own;
}

function read(from: () => string): string {
  try {
    return from();
  } catch {
    return '';
  }
}

/** Process id and start time (fields 1 and 22 of proc(5) stat); undefined if there is no process, or only a zombie. */
function processAt(pid: number | 'self'): { pid: number; start: number } | undefined {
  const text = read(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  // The name is in parentheses and may itself contain spaces and parentheses.
  const [state, ...rest] = text.slice(text.lastIndexOf(')') + 2).split(' ');
  if (text === '' || state === 'Z' || state === 'X') return undefined;
  return { pid: Number.parseInt(text, 10), start: Number(rest[18]) };
}

/** Whether the owner of a record is alive, or cannot be known to be dead. */
function isAlive(folder: string, name: string): boolean {
  const owner = ownerOf(folder, name);
  if (owner === undefined) return false; // withdrawn meanwhile, or not yet on disk at a power cut
  const here = self();
  if (owner.boot !== here.boot) return owner.host !== here.host && isNetworkFolder(folder);
  if (here.start === 0) return exists(owner.pid); // without /proc
  if (owner.pidNamespace === here.pidNamespace) return processAt(owner.pid)?.start === owner.start;
  return isListening(folder, `${name}.sock`) ?? true;
}

function ownerOf(folder: string, name: string): Owner | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, name), 'utf8')) as Owner;
  } catch {
    return undefined;
  }
}

function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}

/** Listens on a socket in `folder` until it is closed; undefined on file systems without sockets. Does not keep the process running. */
function listen(folder: string, name: string): Server | undefined {
  const server = createServer((socket) => socket.destroy());
  server.on('error', () => undefined); // handled below
  server.unref();
  withShortPath(folder, (short) => server.listen({ path: join(short, name), exclusive: true }));
  return server.listening ? server : undefined;
}

/** A path for a socket, which may have at most 107 bytes: Linux takes the folder as an open file of this process. */
function withShortPath<T>(folder: string, use: (path: string) => T): T {
  if (process.platform !== 'linux') return use(folder);
  const fd = openSync(folder, 'r');
  try {
    return use(`/proc/self/fd/${fd}`);
  } finally {
    closeSync(fd);
  }
}

const PROBE = `require('node:net').connect(process.argv[1]).on('connect', () => process.exit(0))
  .on('error', ({ code }) => process.exit(code === 'ECONNREFUSED' ? 3 : 4))`;

/** Whether a process listens on a socket; undefined if the kernel cannot tell. Runs in a child process, because connecting is asynchronous. */
function isListening(folder: string, name: string): boolean | undefined {
  const options = { cwd: folder, timeout: 20_000, stdio: 'ignore', env: { ...process.env, NODE_OPTIONS: '' } } as const;
  const { status } = spawnSync(process.execPath, ['-e', PROBE, name], options);
  return status === 0 ? true : status === 3 ? false : undefined;
}

/** statfs(2) types of file systems shared by several machines: NFS, SMB, CIFS, SMB2, Ceph, FUSE, 9p, Lustre, GPFS, BeeGFS, AFS. */
const NETWORK_TYPES = new Set([
  0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x00c36400, 0x65735546, 0x01021997, 0x0bd00bd0, 0x47504653, 0x19830326,
  0x5346414f,
]);

function isNetworkFolder(folder: string): boolean {
  return NETWORK_TYPES.has(statfsSync(folder).type);
}

function busy(folder: string, name: string): SparseVilaError {
  const owner = ownerOf(folder, name);
  const who = owner === undefined ? 'another process' : `process ${owner.pid} on ${shownPath(owner.host)}`;
  return new SparseVilaError(
    'ERR_BUSY',
    `${shownPath(folder)}: ${who} is working here. Wait for it, or give another name for the output. ` +
      `If it is on a machine or in a container that is gone, remove ${shownPath(join(folder, name))}.`,
  );
}

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
