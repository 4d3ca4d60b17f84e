// Safe opening and reading of files that a user or a checkpoint names. Only regular files (or links to them) are opened, never a FIFO, a
// device or a folder, so nothing waits for a writer or reads without end; sizes are bounded before memory is allocated; a file that changes
// while it is read is an error. Does not know what the files contain.
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname, isAbsolute, join, normalize, resolve, sep } from 'node:path';
import { codeOf, type ErrorCode, messageOf, SparseVilaError } from './errors';

export interface FileOptions {
  /** The expected kind of file, for messages: 'a JSON file', 'an image'. */
  readonly what: string;
  /** The code if nothing exists at the path. Default `ERR_FILE_MISSING`. */
  readonly missing?: ErrorCode;
  /** The code if it cannot be read. Default `ERR_FILE_UNREADABLE`. */
  readonly unreadable?: ErrorCode;
}

export interface ReadOptions extends FileOptions {
  /** Maximum number of bytes; a larger file is an error before anything is allocated. */
  readonly limit: number;
  /** The code for a larger file. Default `ERR_FILE_TOO_LARGE`. */
  readonly tooLarge?: ErrorCode;
}

/** An open regular file. The caller closes `fd`. */
export interface OpenFile {
  readonly fd: number;
  /** Size in bytes, by `fstat` after opening. */
  readonly size: number;
}

const LONGEST_PATH = 300;

/** A path for a message: control characters and terminal escapes become \u escapes, long paths are cut in the middle. */
export function shownPath(path: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what a terminal would obey
  const escaped = path.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  if (escaped.length <= LONGEST_PATH) return escaped;
  return `${escaped.slice(0, LONGEST_PATH / 2)}…${escaped.slice(-LONGEST_PATH / 2)}`;
}

/** Whether anything exists at `path`, including a dangling link, which a caller must not treat as absent. */
export function isPresent(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    // Nothing exists below a parent that is not a folder; any other failure is reported when the file is opened.
    return codeOf(error) !== 'ENOTDIR' && codeOf(error) !== 'ENAMETOOLONG';
  }
}

/** Whether `path` is a folder or a link to one. Never throws. */
export function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** Sorted paths of everything below `folder` that is not a folder. Links to folders are neither followed nor listed. */
export function filesBelow(folder: string, below = ''): string[] {
  return readdirSync(join(folder, below), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(below, entry.name);
      if (entry.isDirectory()) return filesBelow(folder, path);
      return entry.isSymbolicLink() && isFolder(join(folder, path)) ? [] : [path];
    });
}

/**
 * Makes a folder and its parents. Node's recursive `mkdir` never returns where the system answers ENOENT below an existing folder, as under
 * /proc.
 * @throws the system's error
 */
export function makeFolder(path: string, mode?: number): void {
  const absent: string[] = [];
  for (let folder = resolve(path); !existsSync(folder); folder = dirname(folder)) absent.push(folder);
  for (const folder of absent.reverse()) {
    try {
      mkdirSync(folder, mode);
    } catch (error) {
      if (codeOf(error) !== 'EEXIST' || !isFolder(folder)) throw error;
    }
  }
  if (!isFolder(path)) mkdirSync(path); // throws what a file in its place means
}

/**
 * Opens a regular file for reading, through links. Checks the kind before opening, because opening a FIFO or a device has side effects, and
 * again afterwards on the open file.
 * @throws SparseVilaError `options.missing` (nothing exists) or `options.unreadable` (a folder, FIFO, socket, device, dangling link, link
 *   loop, no permission, too many open files), naming the path and the kind
 */
export function openRegular(path: string, options: FileOptions): OpenFile {
  let fd: number | undefined;
  try {
    requireRegular(statSync(path), path, options);
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stat = fstatSync(fd);
    requireRegular(stat, path, options);
    return { fd, size: stat.size };
  } catch (error) {
    if (fd !== undefined) closeSync(fd);
    throw readError(error, path, options);
  }
}

/** `openRegular` for asynchronous callers, who close the handle. */
export async function openRegularHandle(path: string, options: FileOptions): Promise<FileHandle> {
  let handle: FileHandle | undefined;
  try {
    requireRegular(statSync(path), path, options);
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    requireRegular(await handle.stat(), path, options);
    return handle;
  } catch (error) {
    await handle?.close();
    throw readError(error, path, options);
  }
}

/**
 * The bytes of a regular file.
 * @throws SparseVilaError as `openRegular`, `ERR_FILE_TOO_LARGE` beyond `limit`, `ERR_FILE_CHANGED` when it changed while it was read.
 */
export function readFileBounded(path: string, options: ReadOptions): Buffer {
  const { fd, size } = openRegular(path, options);
  try {
    if (size > options.limit) throw tooLarge(path, size, options);
    const before = fstatSync(fd, { bigint: true });
    const bytes = Buffer.allocUnsafe(size);
    readRange(fd, bytes, 0, path);
    const after = fstatSync(fd, { bigint: true });
    if (after.size !== before.size || after.mtimeNs !== before.mtimeNs) throw changed(path);
    return bytes;
  } catch (error) {
    throw readError(error, path, options);
  } finally {
    closeSync(fd);
  }
}

/** `readFileBounded` without blocking the event loop. `check` receives the first bytes before the rest is read. */
export async function readFileBoundedAsync(
  path: string,
  options: ReadOptions & { readonly check?: (head: Uint8Array) => void; readonly headBytes?: number },
): Promise<Buffer> {
  const handle = await openRegularHandle(path, options);
  try {
    const before = await handle.stat({ bigint: true });
    const size = Number(before.size);
    if (options.check !== undefined && size > 0) {
      const head = Buffer.alloc(Math.min(options.headBytes ?? 64, size));
      const { bytesRead } = await handle.read(head, 0, head.length, 0);
      options.check(head.subarray(0, bytesRead));
    }
    if (size > options.limit) throw tooLarge(path, size, options);
    const bytes = Buffer.allocUnsafe(size);
    for (let done = 0; done < size; ) {
      const { bytesRead } = await handle.read(bytes, done, size - done, done);
      if (bytesRead === 0) throw changed(path);
      done += bytesRead;
    }
    const after = await handle.stat({ bigint: true });
    if (after.size !== before.size || after.mtimeNs !== before.mtimeNs) throw changed(path);
    return bytes;
  } catch (error) {
    throw readError(error, path, options);
  } finally {
    await handle.close();
  }
}

/**
 * A UTF-8 text file, without its byte order mark.
 * @throws SparseVilaError as `readFileBounded`; `ERR_FILE_ENCODING` when the bytes are not UTF-8.
 */
export function readTextFile(path: string, options: ReadOptions): string {
  const bytes = readFileBounded(path, options);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    const utf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
    const found = utf16 ? 'UTF-16' : 'bytes of another encoding';
    const message = `${shownPath(path)}: expected ${options.what} in UTF-8, received ${found}. Save it as UTF-8.`;
    throw new SparseVilaError('ERR_FILE_ENCODING', message, { cause });
  }
}

/** Fills `into` from `position` on. @throws SparseVilaError `ERR_FILE_CHANGED` if the file ends before that. */
export function readRange(fd: number, into: Uint8Array, position: number, path: string): void {
  for (let done = 0; done < into.byteLength; ) {
    const count = readSync(fd, into, done, into.byteLength - done, position + done);
    if (count === 0) throw changed(path);
    done += count;
  }
}

/**
 * The path of `name`, which a checkpoint specifies, in `folder`. The name itself must stay inside; links are followed when the file is opened,
 * because the Hugging Face cache consists of links to `../../blobs`.
 * @throws SparseVilaError with `code` (default `ERR_PATH_OUTSIDE`) for an absolute name, one with `..` that leaves, a NUL or a backslash
 */
export function insideFolder(
  folder: string,
  name: string,
  { what, code = 'ERR_PATH_OUTSIDE' }: { readonly what: string; readonly code?: ErrorCode },
): string {
  const path = normalize(name);
  const leaves = isAbsolute(path) || path === '..' || path.startsWith(`..${sep}`);
  if (!leaves && name !== '' && !/[\\\0]/.test(name)) return join(folder, path);
  throw new SparseVilaError(
    code,
    `${shownPath(folder)}: expected ${what} inside the folder, received ${JSON.stringify(shownPath(name))}.`,
  );
}

/** The kind of file that a `stat` describes, for messages. */
export function kindOf(stat: Stats): string {
  if (stat.isFile()) return 'a regular file';
  if (stat.isDirectory()) return 'a directory';
  if (stat.isFIFO()) return 'a FIFO (named pipe)';
  if (stat.isSocket()) return 'a socket';
  return 'a device';
}

function requireRegular(stat: Stats, path: string, options: FileOptions): void {
  if (!stat.isFile()) throw unreadable(path, `it is ${kindOf(stat)}`, options);
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  ENOTDIR: 'a part of the path is not a directory',
  ENAMETOOLONG: 'the name is too long',
  ELOOP: 'it is a link that leads back to itself',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EMFILE: 'too many open files: raise `ulimit -n`',
  ENFILE: 'too many open files on this machine',
  EIO: 'the disk reports an input/output error',
  ESTALE: 'the network file system has lost it',
  ENXIO: 'it is a socket or a device without a driver',
  ERR_INVALID_ARG_VALUE: 'the name contains a NUL character',
};

/** The error for a failure to read `path`; an error of ours stays unchanged. */
export function readError(error: unknown, path: string, options: FileOptions): Error {
  if (error instanceof SparseVilaError) return error;
  const code = codeOf(error) ?? '';
  const isDangling = code === 'ENOENT' && isPresent(path);
  const reason = isDangling ? 'it is a link to a file that is not there' : (REASONS[code] ?? messageOf(error));
  const isMissing = !isDangling && ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'ERR_INVALID_ARG_VALUE'].includes(code);
  if (!isMissing) return unreadable(path, reason, options, error);
  const message = `${shownPath(path)}: cannot be read (${reason}). Expected ${options.what}.`;
  return new SparseVilaError(options.missing ?? 'ERR_FILE_MISSING', message, { cause: error });
}

function unreadable(path: string, reason: string, options: FileOptions, cause?: unknown): SparseVilaError {
  const message = `${shownPath(path)}: cannot be read (${reason}). Expected ${options.what}: a regular file, or a link to one.`;
  return new SparseVilaError(options.unreadable ?? 'ERR_FILE_UNREADABLE', message, { cause });
}

function tooLarge(path: string, size: number, { what, limit, tooLarge: code }: ReadOptions): SparseVilaError {
  const message = `${shownPath(path)}: expected ${what} of at most ${limit} bytes, received ${size}. Is it the right file?`;
  return new SparseVilaError(code ?? 'ERR_FILE_TOO_LARGE', message);
}

function changed(path: string): SparseVilaError {
  const message = `${shownPath(path)}: the file changed while it was read. Wait until it is written, and try again.`;
  return new SparseVilaError('ERR_FILE_CHANGED', message);
}
