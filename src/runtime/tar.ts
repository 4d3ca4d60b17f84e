// Reads the files of a gzipped tar archive (such as an npm package) that fits into memory.
// Source: POSIX.1-2017, pax, "ustar Interchange Format". Knows nothing of npm.

import { gunzipSync } from 'node:zlib';
import { messageOf, SparseVilaError } from '../errors';

const BLOCK = 512;
/** Maximum bytes of an unpacked archive: 25 times the largest one in use. */
const MOST_BYTES = 50e6;

/** The archive's regular files: names, as they are in it, and contents. @throws SparseVilaError `ERR_BAD_ZIP` */
export function readTarball(packed: Uint8Array): Map<string, Buffer> {
  const tar = unpack(packed);
  const files = new Map<string, Buffer>();
  for (let at = 0; at + BLOCK <= tar.length && tar[at] !== 0; ) {
    const text = (offset: number, length: number): string =>
      tar
        .toString('utf8', at + offset, at + offset + length)
        .split('\0', 1)[0]
        ?.trim() ?? '';
    const [name, prefix, type] = [text(0, 100), text(345, 155), text(156, 1)];
    const size = Number.parseInt(text(124, 12), 8);
    const from = at + BLOCK;
    if (text(257, 5) !== 'ustar' || !(size >= 0) || from + size > tar.length) {
      throw new SparseVilaError('ERR_BAD_ZIP', `Expected a tar header at byte ${at} of the archive but found none.`);
    }
    if (type === '0' || type === '') {
      files.set(prefix === '' ? name : `${prefix}/${name}`, tar.subarray(from, from + size));
    }
    at = from + Math.ceil(size / BLOCK) * BLOCK;
  }
  return files;
}

function unpack(packed: Uint8Array): Buffer {
  try {
    return gunzipSync(packed, { maxOutputLength: MOST_BYTES });
  } catch (cause) {
    throw new SparseVilaError('ERR_BAD_ZIP', `Expected a gzipped archive: ${messageOf(cause)}.`, { cause });
  }
}
