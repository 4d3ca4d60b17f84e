// What a film is given as, and the name by which errors call it: a regular file that ffmpeg opens, or bytes that it reads from a pipe.

import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { messageOf, SparseVilaError } from '../errors';
import { openRegularHandle, readError } from '../files';
import { collect } from '../image/collect';
import { type AllowUrls, fetchImage } from '../image/fetch';
import { type BlobLike, type ImageInput, iterated, type RawPixels, sourceOf } from '../image/input';
import { SIGNATURE_BYTES } from '../image/signature';
import { dataUrlBytes, isDataUrl, nameOfText } from '../image/text';
import { streamable } from './faststart';

/** A film: a path, a URL (`file:`, `data:`; `http:` and `https:` if `allowUrls` allows it), bytes (Buffer, ArrayBuffer, Blob), or a stream of bytes. */
export type FilmInput = Exclude<ImageInput, RawPixels>;

export interface FilmSource {
  readonly name: string;
  /** The first bytes. */
  readonly head: Uint8Array;
  /** A regular file and its stamp, or the bytes in an order in which they can be read from a pipe. */
  readonly from:
    | { readonly path: string; readonly stamp: string }
    | { readonly bytes: Uint8Array; readonly pieces: readonly Uint8Array[] };
}

/** Maximum number of bytes of a film that is held in memory. */
export const MOST_BYTES = 2 ** 30;
/** Enough for the signatures that matter here. */
const HEAD_BYTES = SIGNATURE_BYTES;
/** Milliseconds for fetching a film. */
const FETCH_MS = 10 * 60_000;

/**
 * Finds a film without decoding anything.
 * @throws SparseVilaError ERR_VIDEO_NOT_FOUND, ERR_VIDEO_UNREADABLE, ERR_VIDEO_EMPTY, ERR_VIDEO (no film); ERR_IMAGE_URL, ERR_IMAGE_FETCH and
 *   ERR_IMAGE_TOO_LARGE of its fetching
 */
export async function filmSource(
  input: unknown,
  { allowUrls, signal }: { readonly allowUrls: AllowUrls; readonly signal?: AbortSignal | undefined },
): Promise<FilmSource> {
  const source = sourceOf(input);
  if (source.kind === 'pixels')
    throw new SparseVilaError('ERR_VIDEO', 'Expected a film, received raw pixels of one picture.');
  if (source.kind === 'bytes') return ofBytes(source.bytes, `video buffer of ${source.bytes.byteLength} bytes`);
  const options = { maxBytes: MOST_BYTES, signal, check: () => undefined };
  if (source.kind === 'stream')
    return ofBytes(await collect(source.open, { ...options, name: 'video stream' }), 'video stream');
  if (source.kind === 'blob')
    return ofBytes(
      await collect(() => iterated(onePiece(source.blob)), { ...options, name: 'video blob' }),
      'video blob',
    );
  const { text } = source;
  const name = nameOfText(text).replace(/^image/, 'video');
  if (isDataUrl(text)) return ofBytes(dataUrlBytes(text), name);
  if (/^https?:\/\//i.test(text))
    return ofBytes(await fetchImage(text, allowUrls, { ...options, name, fetchMs: FETCH_MS }), name);
  return ofPath(text, name);
}

async function* onePiece(blob: BlobLike): AsyncGenerator<unknown> {
  yield await blob.arrayBuffer();
}

function ofBytes(bytes: Uint8Array, name: string): FilmSource {
  if (bytes.byteLength === 0) throw empty(name);
  return { name, head: bytes.subarray(0, HEAD_BYTES), from: { bytes, pieces: streamable(bytes) } };
}

/** How errors of a film's file are told. */
export const FILM_FILE = {
  what: 'a video file',
  missing: 'ERR_VIDEO_NOT_FOUND',
  unreadable: 'ERR_VIDEO_UNREADABLE',
} as const;

async function ofPath(text: string, name: string): Promise<FilmSource> {
  const isFileUrl = /^file:/i.test(text);
  const path = isFileUrl ? fromFileUrl(text, name) : text;
  if (!isFileUrl && /^[a-z][a-z0-9+.-]+:\/\//i.test(path))
    throw notFound(name, 'URLs of this type are not read: read it yourself and pass the bytes');
  const file = await openRegularHandle(path, FILM_FILE);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    if (bytesRead === 0) throw empty(name);
    return { name, head: buffer.subarray(0, bytesRead), from: { path, stamp: stamped(await file.stat()) } };
  } catch (error) {
    throw readError(error, path, FILM_FILE);
  } finally {
    await file.close();
  }
}

/** A text that changes when a file is replaced or written to; empty if there is no such file. */
export const stampOf = async (path: string): Promise<string> => stat(path).then(stamped, () => '');
const stamped = ({ size, mtimeMs, ino }: Stats): string => `${size} ${mtimeMs} ${ino}`;

/** @throws SparseVilaError ERR_VIDEO_UNREADABLE for a file that is another one than when the film was opened */
export async function checkUnchanged(name: string, path: string, stamp: string): Promise<void> {
  const found = await stampOf(path);
  if (found === stamp) return;
  throw new SparseVilaError(
    'ERR_VIDEO_UNREADABLE',
    `Expected ${name} as it was when it was given but the file has been ${found === '' ? 'removed' : 'changed'} since; keep it as long as its conversation.`,
  );
}

function fromFileUrl(text: string, name: string): string {
  try {
    return fileURLToPath(text);
  } catch (cause) {
    throw notFound(name, messageOf(cause), cause);
  }
}

function notFound(name: string, reason: string, cause?: unknown): SparseVilaError {
  return new SparseVilaError('ERR_VIDEO_NOT_FOUND', `Expected a video file for ${name} but ${reason}.`, { cause });
}

function empty(name: string): SparseVilaError {
  return new SparseVilaError('ERR_VIDEO_EMPTY', `Expected a video for ${name} but received 0 bytes.`);
}
