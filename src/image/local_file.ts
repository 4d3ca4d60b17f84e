// Reads local files: a regular file, or a FIFO, which the event loop reads, so that no thread of libuv's pool waits for a writer.

import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import { codeOf, messageOf, SparseVilaError } from '../errors';
import { kindOf, openRegularHandle, readError, readFileBoundedAsync } from '../files';
import { iterated, type Pieces } from './input';
import { READABLE, requireSupported, SIGNATURE_BYTES } from './signature';

/** Longer texts cannot be paths on Linux. */
const PATH_MAX = 4096;
const ABSENT: readonly (string | undefined)[] = ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG'];
const CODES = {
  what: READABLE,
  missing: 'ERR_IMAGE_NOT_FOUND',
  unreadable: 'ERR_IMAGE_UNREADABLE',
  tooLarge: 'ERR_IMAGE_TOO_LARGE',
} as const;

/**
 * The kind of file at `path`; 'nothing' also if it cannot be a path.
 * @throws SparseVilaError ERR_IMAGE_UNREADABLE for a directory, a device, a socket, or without permission
 */
export async function fileKind(path: string, name: string): Promise<'file' | 'fifo' | 'socket' | 'nothing'> {
  if (path.length > PATH_MAX) return 'nothing';
  try {
    const stats = await stat(path);
    if (stats.isFile()) return 'file';
    if (stats.isFIFO()) return 'fifo';
    // Node gives a child process a socket as its standard input.
    if (stats.isSocket() && path === '/dev/stdin') return 'socket';
    throw unreadable(name, `it is ${kindOf(stats)}`);
  } catch (error) {
    if (error instanceof SparseVilaError) throw error;
    if (ABSENT.includes(codeOf(error))) return 'nothing';
    throw unreadable(name, `it cannot be opened (${codeOf(error) ?? messageOf(error)})`, error);
  }
}

/** Reads a regular file, but stops after the first bytes if they are not an image's, so that a video given by mistake is not read. */
export function readImageFile(path: string, name: string, maxBytes: number): Promise<Uint8Array> {
  const check = (head: Uint8Array): void => requireSupported(head, name);
  return readFileBoundedAsync(path, { ...CODES, limit: maxBytes, check, headBytes: SIGNATURE_BYTES });
}

/** Reads the first bytes of a regular file. */
export async function readHead(path: string): Promise<Uint8Array> {
  const file = await openRegularHandle(path, CODES);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(SIGNATURE_BYTES), 0, SIGNATURE_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } catch (error) {
    throw readError(error, path, CODES);
  } finally {
    await file.close();
  }
}

/**
 * Opens a FIFO for reading without waiting for a writer; its pieces come when there is one, and end when the last one has closed it.
 * @throws SparseVilaError ERR_IMAGE_UNREADABLE
 */
export function openFifo(path: string, name: string): Pieces {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    if (!fstatSync(fd).isFIFO()) throw unreadable(name, 'it changed while it was opened');
    return iterated(new Socket({ fd, readable: true, writable: false }));
  } catch (error) {
    if (fd !== undefined) closeSync(fd);
    if (error instanceof SparseVilaError) throw error;
    throw unreadable(name, `it cannot be opened (${codeOf(error) ?? messageOf(error)})`, error);
  }
}

function unreadable(name: string, reason: string, cause?: unknown): SparseVilaError {
  return new SparseVilaError(
    'ERR_IMAGE_UNREADABLE',
    `Expected an image file for ${name} but ${reason}; pass the path of one image file that may be read.`,
    cause === undefined ? {} : { cause },
  );
}
