// The outline of a model without its weights: a temporary folder with its small files, and for each weight file one of the same length
// that contains only its safetensors header (a sparse file, which takes no space).

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { SparseVilaError } from '../errors';
import { makeFolder } from '../files';
import { fetchBlob } from './blob';
import { pick } from './download';
import { offlineError, shownName } from './errors';
import type { HubName } from './names';
import { filesOf, fileUrl, infoOf, type RemoteFile } from './repository';
import { type Attempt, type Call, failedAttempt, get, piecesOf, repeated, watchdog } from './request';
import { hubSettings } from './settings';
import { cachedSnapshot, type SnapshotOptions } from './snapshot';

/** Number of bytes of a weight file that are requested first: most headers are shorter. */
const FIRST_BYTES = 256 * 1024;
/** The limit of the safetensors reader. */
const MOST_HEADER_BYTES = 100_000_000;

/**
 * Calls `use` with the folder of a model in the cache, or with an outline of it, which is removed afterwards, and with the folder's name for messages.
 * @throws SparseVilaError as `snapshot`; errors of `use`
 */
export async function withOutline<T>(
  wanted: HubName,
  options: SnapshotOptions,
  use: (folder: string, shown: string) => Promise<T>,
): Promise<T> {
  const { needs, signal, settings = hubSettings() } = options;
  const cached = cachedSnapshot(wanted, needs, settings);
  if (cached !== undefined) return await use(cached.folder, cached.folder);
  if (settings.offline) throw offlineError(wanted, settings.cache);
  const call: Call = { subject: { ...wanted, endpoint: settings.endpoint }, settings, signal };
  const { commit, files: listed } = await infoOf(call);
  const files = listed ?? (await filesOf(call, commit));
  const temporary = mkdtempSync(join(tmpdir(), 'sparsevila-outline-'));
  try {
    const folder = join(temporary, wanted.name);
    const paths = files.map(({ path }) => path);
    const place = (file: RemoteFile): [URL, string] => {
      const path = join(folder, file.path);
      makeFolder(dirname(path));
      return [fileUrl(call, commit, file.path), path];
    };
    for (const file of pick(call, files, needs.configs(paths))) {
      const [url, path] = place(file);
      await fetchBlob(call, url, file, path, () => undefined);
    }
    const small = new Set(needs.configs(paths));
    for (const file of pick(call, files, needs.weights(folder, paths)).filter(({ path }) => !small.has(path))) {
      const [url, path] = place(file);
      writeFileSync(path, await headerOf(call, url, file));
      truncateSync(path, file.size);
    }
    return await use(folder, shownName(wanted));
  } catch (error) {
    throw error instanceof SparseVilaError ? withoutFolder(error, temporary) : error;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** Removes the temporary folder's path from an error, because the folder no longer exists when the error is read. */
function withoutFolder(error: SparseVilaError, temporary: string): SparseVilaError {
  return new SparseVilaError(error.code, error.message.replaceAll(`${temporary}/`, ''), { cause: error });
}

/** The length (8 bytes) and the JSON of a safetensors header. */
async function headerOf(call: Call, url: URL, file: RemoteFile): Promise<Buffer> {
  const first = await headOf(call, url, Math.min(FIRST_BYTES, file.size));
  const bytes = first.length < 8 ? 0 : 8 + Number(first.readBigUInt64LE());
  // The reader reports an invalid header.
  if (bytes > Math.min(8 + MOST_HEADER_BYTES, file.size) || bytes <= first.length) return first;
  return await headOf(call, url, bytes);
}

/** The first `bytes` of a file. */
const headOf = (call: Call, url: URL, bytes: number): Promise<Buffer> =>
  repeated(call, async (): Promise<Attempt<Buffer>> => {
    const watch = watchdog(call);
    try {
      const headers = { 'accept-encoding': 'identity', range: `bytes=0-${bytes - 1}` };
      const result = await get(call, url, headers, watch);
      if (!('value' in result)) return result;
      const pieces: Uint8Array[] = [];
      let length = 0;
      // Leaving the loop ends the response: a server without ranges sends all of the file.
      for await (const piece of piecesOf(result.value, watch)) {
        pieces.push(piece);
        length += piece.length;
        if (length >= bytes) break;
      }
      if (length < bytes) return failedAttempt(call, url, new Error(`${length} of ${bytes} bytes were received`));
      return { value: Buffer.concat(pieces).subarray(0, bytes) };
    } catch (error) {
      return failedAttempt(call, url, error);
    } finally {
      watch.stop();
    }
  });
