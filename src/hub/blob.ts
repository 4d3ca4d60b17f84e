// Downloads one file into the cache's `blobs` folder under a temporary name, continuing an earlier attempt, and hashes it on the way; only a
// file with the correct hash gets its final name.

import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SparseVilaError } from '../errors';
import { syncFolder, writeError } from '../runtime/atomic';
import { hubError, networkError, responseError } from './errors';
import type { RemoteFile } from './repository';
import { type Attempt, type Call, failedAttempt, get, piecesOf, repeated, watchdog } from './request';

/** The temporary name of a blob during its download. It ends like those of huggingface_hub, whose clean-up recognizes it. */
export const partialOf = (blob: string): string => `${blob}.sparsevila.incomplete`;

const READ_BYTES = 1 << 20;

/** A file that is being written: the number of its bytes so far, and their hash. */
interface Partial {
  readonly handle: FileHandle;
  hash: Hash;
  done: number;
}

/**
 * Downloads `file` from `url` to `blob`. `onBytes` receives numbers of new bytes, negative for bytes that have to be fetched again. The caller
 * holds the lock of the model.
 * @throws SparseVilaError `ERR_HUB_…`, `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`; `signal.reason`. Received bytes are kept, unless they are wrong.
 */
export async function fetchBlob(
  call: Call,
  url: URL,
  file: RemoteFile,
  blob: string,
  onBytes: (count: number) => void,
): Promise<void> {
  const partial = partialOf(blob);
  try {
    // Twice, because the bytes of an earlier process may be damaged.
    for (let attempt = 1; !(await complete(call, url, file, partial, onBytes)); attempt++) {
      await rm(partial, { force: true });
      onBytes(-file.size);
      if (attempt === 2) throw wrongHash(call, file);
    }
    await rename(partial, blob);
    syncFolder(dirname(blob));
  } catch (error) {
    throw writeError(error, partial);
  }
}

/** Fetches the missing bytes; returns whether the whole file has the hash of `file`. */
async function complete(
  call: Call,
  url: URL,
  file: RemoteFile,
  path: string,
  onBytes: (count: number) => void,
): Promise<boolean> {
  // Never follows a link that somebody has put there.
  const handle = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o666);
  try {
    const partial: Partial = { handle, hash: newHash(file), done: 0 };
    await readBack(partial, file, call.signal);
    onBytes(partial.done);
    while (partial.done < file.size) {
      let before = partial.done;
      const hasAdvanced = (): boolean => partial.done > before;
      const attempt = (): Promise<Attempt<boolean>> => {
        before = partial.done;
        return receive(call, url, file, partial, onBytes);
      };
      await repeated(call, attempt, hasAdvanced);
    }
    await handle.sync();
    return partial.hash.digest('hex') === file.hash;
  } finally {
    await handle.close();
  }
}

/** git hashes a header before the content of a small file. */
function newHash({ hash, size }: RemoteFile): Hash {
  return hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

/** Hashes the existing bytes; a file that is too long starts again. */
async function readBack(partial: Partial, file: RemoteFile, signal: AbortSignal | undefined): Promise<void> {
  const { handle } = partial;
  const { size } = await handle.stat();
  if (size > file.size) return await handle.truncate(0);
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  while (partial.done < size) {
    signal?.throwIfAborted();
    const { bytesRead } = await handle.read(buffer, 0, Math.min(READ_BYTES, size - partial.done), partial.done);
    if (bytesRead === 0) return;
    partial.hash.update(buffer.subarray(0, bytesRead));
    partial.done += bytesRead;
  }
}

/** One request for the rest of a file. Returns whether bytes remain. */
async function receive(
  call: Call,
  url: URL,
  file: RemoteFile,
  partial: Partial,
  onBytes: (count: number) => void,
): Promise<Attempt<boolean>> {
  const watch = watchdog(call);
  try {
    // Without compression, so that received bytes are bytes of the file.
    const headers = { 'accept-encoding': 'identity', ...(partial.done > 0 && { range: `bytes=${partial.done}-` }) };
    const result = await get(call, url, headers, watch);
    if (!('value' in result)) return result;
    const { value: response } = result;
    if (!continues(response, partial.done)) {
      if (response.status !== 200) {
        void response.body?.cancel().catch(() => undefined);
        if (partial.done === 0) throw responseError(call.subject.name, `${response.status} for ${file.path}`);
      }
      onBytes(-partial.done);
      await partial.handle.truncate(0);
      Object.assign(partial, { hash: newHash(file), done: 0 });
      if (response.status !== 200) return { value: true };
    }
    for await (const piece of piecesOf(response, watch)) {
      if (partial.done + piece.length > file.size) throw tooLong(call, file);
      await write(partial.handle, piece, partial.done);
      partial.hash.update(piece);
      partial.done += piece.length;
      onBytes(piece.length);
    }
    if (partial.done === file.size) return { value: true };
    const ended = new Error(`${file.path} ended after ${partial.done} of ${file.size} bytes`);
    return { failed: networkError(call.subject, url, ended) };
  } catch (error) {
    if (writeError(error, '') !== error) throw error;
    return failedAttempt(call, url, error);
  } finally {
    watch.stop();
  }
}

/** Whether a response begins with byte `from` of the file. */
function continues({ status, headers }: Response, from: number): boolean {
  if (status === 200) return from === 0;
  const [, begin] = /^bytes (\d+)-/.exec(headers.get('content-range') ?? '') ?? [];
  return status === 206 && Number(begin) === from;
}

async function write(handle: FileHandle, piece: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < piece.length; ) {
    const { bytesWritten } = await handle.write(piece, done, piece.length - done, position + done);
    done += bytesWritten;
  }
}

function tooLong({ subject }: Call, { path, size }: RemoteFile): SparseVilaError {
  return hubError(
    'ERR_HUB_HASH',
    `${subject.name}: expected ${size} bytes for ${path}, received more. Try again later.`,
  );
}

function wrongHash({ subject }: Call, { path, hash }: RemoteFile): SparseVilaError {
  const kind = hash.length === 64 ? 'sha256' : 'git sha1';
  return new SparseVilaError(
    'ERR_HUB_HASH',
    `${subject.name}: expected ${path} with the ${kind} ${hash}, received other bytes twice. Nothing of it was kept; try again, or see ` +
      'whether HF_ENDPOINT or a proxy alters files.',
  );
}
