// Turns what a caller hands in as an encoded image into bytes of a known format, with errors that name the image.
// Knows nothing about decoding: only the file system and the first bytes of each format.
// Source: the signatures of the formats' specifications (PNG §5.2, JPEG B.2.4.1, GIF89a §17, RFC 9649, TIFF 6.0 §2, ISO 14496-12 §4.3).

import { open } from 'node:fs/promises';
import { SparseVilaError } from '../errors';

/** An encoded image in memory, and what to call it in errors. */
export interface EncodedImage {
  bytes: Uint8Array;
  name: string;
}

const READABLE = 'a JPEG, PNG, WebP, GIF, TIFF or AVIF image';

/**
 * The bytes of `input`, checked to start like a format that can be decoded.
 *
 * A file is read whole, not handed on by name: what is checked is then what is decoded, and libvips caches nothing under a path.
 * @throws SparseVilaError ERR_IMAGE_NOT_FOUND, ERR_IMAGE_UNREADABLE (directory, permission), ERR_IMAGE_EMPTY, ERR_IMAGE_UNSUPPORTED
 */
export async function readImage(input: string | Uint8Array): Promise<EncodedImage> {
  const name = typeof input === 'string' ? `image "${input}"` : `image buffer of ${input.byteLength} bytes`;
  const bytes = typeof input === 'string' ? await readFile(input, name) : input;
  if (bytes.byteLength === 0) {
    throw new SparseVilaError(
      'ERR_IMAGE_EMPTY',
      `Expected ${READABLE} for ${name} but received 0 bytes; check how it was written or read.`,
    );
  }
  requireSupported(bytes, name);
  return { bytes, name };
}

/** Reads a file whole, but only after its first bytes have been seen to be an image: a video by mistake costs nothing. */
async function readFile(path: string, name: string): Promise<Uint8Array> {
  try {
    await using file = await open(path, 'r');
    const stat = await file.stat();
    if (!stat.isFile()) {
      const kind = stat.isDirectory() ? 'a directory' : 'neither a file nor a directory';
      throw new SparseVilaError(
        'ERR_IMAGE_UNREADABLE',
        `Expected an image file for ${name} but it is ${kind}; pass the path of one image file.`,
      );
    }
    const head = Buffer.alloc(Math.min(SIGNATURE_BYTES, stat.size));
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    if (bytesRead > 0) requireSupported(head.subarray(0, bytesRead), name);
    return await file.readFile();
  } catch (error) {
    if (error instanceof SparseVilaError) throw error;
    throw fileError(error, path, name);
  }
}

function fileError(error: unknown, path: string, name: string): SparseVilaError {
  const { code, message } = error as NodeJS.ErrnoException;
  const text = code ?? message;
  if (code !== 'ENOENT' && code !== 'ENOTDIR' && code !== 'ENAMETOOLONG') {
    return new SparseVilaError(
      'ERR_IMAGE_UNREADABLE',
      `Expected a readable file for ${name} but opening it failed with ${text}; check its permissions.`,
      {
        cause: error,
      },
    );
  }
  const isUrl = /^(data|https?|file|ftp):/i.test(path);
  const shown = path.length > 200 ? `image "${path.slice(0, 200)}…"` : name;
  const advice = isUrl
    ? 'URLs are not fetched: read it yourself and pass the bytes as a Buffer'
    : `check the path; it is taken relative to the working directory`;
  return new SparseVilaError(
    'ERR_IMAGE_NOT_FOUND',
    `Expected an existing file for ${shown} but there is none (${text}); ${advice}.`,
    { cause: error },
  );
}

/** Enough for the longest signature below and the brands of an AVIF file. */
const SIGNATURE_BYTES = 64;

const DECODABLE = ['\xff\xd8\xff', '\x89PNG\r\n\x1a\n', 'GIF87a', 'GIF89a', 'II*\0', 'II+\0', 'MM\0*', 'MM\0+'];
/** Formats users try, with their first bytes: named in the error. */
const FOREIGN: readonly (readonly [signature: string, name: string])[] = [
  ['BM', 'BMP'],
  ['%PDF', 'PDF'],
  ['\xff\x0a', 'JPEG XL'],
  ['\0\0\0\x0cJXL ', 'JPEG XL'],
  ['\0\0\0\x0cjP  ', 'JPEG 2000'],
  ['\xff\x4f\xff\x51', 'JPEG 2000'],
];

function requireSupported(bytes: Uint8Array, name: string): void {
  const length = Math.min(SIGNATURE_BYTES, bytes.byteLength);
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, length).toString('latin1');
  if (DECODABLE.some((signature) => head.startsWith(signature))) return;
  if (head.startsWith('RIFF') && head.slice(8, 12) === 'WEBP') return;
  const received = foreignFormat(head);
  if (received === undefined) return;
  throw new SparseVilaError(
    'ERR_IMAGE_UNSUPPORTED',
    `Expected ${READABLE} for ${name} but received ${received}; convert it to PNG or JPEG.`,
  );
}

/** What `head` (latin1) seems to be, or undefined for AVIF. */
function foreignFormat(head: string): string | undefined {
  if (head.slice(4, 8) === 'ftyp') {
    const brands = head.slice(8);
    if (/avi[fs]/.test(brands)) return undefined;
    return /hei[cxms]|hev[cxms]|mif1|msf1/.test(brands)
      ? 'HEIC (HEVC is not in the decoder)'
      : 'an MP4 or QuickTime file';
  }
  const known = FOREIGN.find(([signature]) => head.startsWith(signature));
  if (known !== undefined) return known[1];
  if (/^\s*(<\?xml|<svg|<!doctype|<html)/i.test(head)) return 'SVG or another XML or HTML document';
  const hex = Buffer.from(head.slice(0, 8), 'latin1').toString('hex');
  return `bytes of no format known here (the first are ${hex})`;
}
