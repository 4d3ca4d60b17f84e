// Turns an encoded image input into bytes of a known format, with errors that name the image. Knows nothing about decoding.

import { isAbsolute } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf, SparseVilaError } from '../errors';
import { collect, tooManyBytes } from './collect';
import { type AllowUrls, fetchImage } from './fetch';
import { type BlobLike, type ImageInput, type ImageSource, iterated, type Pieces, sourceOf } from './input';
import { fileKind, openFifo, readHead, readImageFile } from './local_file';
import { requireSharp } from './sharp';
import { READABLE, requireSupported } from './signature';
import { base64Image, dataUrlBytes, isDataUrl, nameOfText } from './text';

/** An encoded image in memory, and its name in errors. */
export interface ImageFile {
  readonly bytes: Uint8Array;
  readonly name: string;
}

export interface SourceOptions {
  /** Maximum number of bytes of an encoded image. */
  readonly maxBytes: number;
  readonly allowUrls: AllowUrls;
  readonly signal?: AbortSignal | undefined;
}

/** Reads the image when there is memory for it; a source other than a regular file has been read before. */
export type ReadImage = () => Promise<ImageFile>;

type Encoded = Exclude<ImageSource, { kind: 'pixels' }>;

/**
 * Finds `source`, and reads it unless it is a regular file. A file is read whole and not passed on by name, so that the bytes that were
 * checked are the ones that are decoded, and libvips caches nothing under a path.
 * @throws SparseVilaError ERR_IMAGE_NOT_FOUND, ERR_IMAGE_UNREADABLE (directory, device, socket, permission, timeout), ERR_IMAGE_EMPTY,
 *   ERR_IMAGE_UNSUPPORTED, ERR_IMAGE_TOO_LARGE, ERR_IMAGE_INVALID, ERR_IMAGE_URL, ERR_IMAGE_FETCH; `signal.reason` if aborted
 */
export async function openImage(source: Encoded, options: SourceOptions): Promise<ReadImage> {
  if (source.kind === 'text') return openText(source.text, options);
  const bytes = source.kind === 'bytes' ? source.bytes : undefined;
  if (bytes !== undefined) return ready(bytes, `image buffer of ${bytes.byteLength} bytes`, options);
  if (source.kind === 'stream') return collected(source.open, 'image stream', options);
  const { blob } = source as { blob: BlobLike };
  const name = `image blob of ${blob.size} bytes`;
  if (blob.size > options.maxBytes) throw tooManyBytes(name, options.maxBytes);
  return collected(() => iterated(onePiece(blob)), name, options);
}

/**
 * Requires that an image exists and starts like one, reading only its first bytes; a FIFO, a URL or a stream is not checked, because it can
 * be read only once.
 * @throws SparseVilaError as `openImage`
 */
export async function checkImage(input: ImageInput): Promise<void> {
  requireSharp();
  const source = sourceOf(input);
  const limits = { maxBytes: Number.MAX_SAFE_INTEGER, allowUrls: true };
  if (source.kind === 'bytes') await openImage(source, limits);
  if (source.kind !== 'text' || isWebUrl(source.text)) return;
  const name = nameOfText(source.text);
  const path = pathOf(source.text, name);
  const place = path === undefined ? 'nothing' : await fileKind(path, name);
  if (path !== undefined && place === 'file') requireImage(await readHead(path), name);
  if (place === 'nothing') await openText(source.text, limits);
}

async function openText(text: string, options: SourceOptions): Promise<ReadImage> {
  const name = nameOfText(text);
  if (isDataUrl(text)) return ready(dataUrlBytes(text), name, options);
  if (isWebUrl(text)) return ready(await fetchImage(text, options.allowUrls, { ...options, name }), name, options);
  const path = pathOf(text, name) ?? text;
  const place = await fileKind(path, name);
  if (place === 'file') {
    return async () => {
      const bytes = await readImageFile(path, name, options.maxBytes);
      requireImage(bytes, name);
      return { bytes, name };
    };
  }
  if (place === 'fifo') return collected(() => openFifo(path, name), name, options);
  if (place === 'socket') return collected(() => iterated(process.stdin), name, options);
  const bytes = base64Image(text);
  if (bytes === undefined) throw notFound(text, name);
  return ready(bytes, `image in base64 of ${text.length} characters`, options);
}

async function collected(open: () => Pieces, name: string, options: SourceOptions): Promise<ReadImage> {
  return ready(await collect(open, { ...options, name }), name, options);
}

function ready(bytes: Uint8Array, name: string, { maxBytes }: SourceOptions): ReadImage {
  if (bytes.byteLength > maxBytes) throw tooManyBytes(name, maxBytes);
  requireImage(bytes, name);
  return async () => ({ bytes, name });
}

function requireImage(bytes: Uint8Array, name: string): void {
  if (bytes.byteLength === 0) {
    throw new SparseVilaError(
      'ERR_IMAGE_EMPTY',
      `Expected ${READABLE} for ${name} but received 0 bytes; check how it was written, and that no stream is read twice.`,
    );
  }
  requireSupported(bytes, name);
}

async function* onePiece(blob: BlobLike): AsyncGenerator<unknown> {
  yield await blob.arrayBuffer();
}

const isWebUrl = (text: string): boolean => /^https?:\/\//i.test(text);

/** The path that a text names, including `file:` URLs; undefined for a data URL. */
function pathOf(text: string, name: string): string | undefined {
  if (isDataUrl(text)) return undefined;
  if (!/^file:/i.test(text)) return text;
  try {
    return fileURLToPath(text);
  } catch (cause) {
    const reason = messageOf(cause);
    throw new SparseVilaError('ERR_IMAGE_INVALID', `Expected a file URL of this machine for ${name} but ${reason}.`, {
      cause,
    });
  }
}

function notFound(text: string, name: string): SparseVilaError {
  const scheme = /^([a-z][a-z0-9+.-]+):\/\//i.exec(text)?.[1];
  const advice =
    scheme === undefined
      ? `check the path${isAbsolute(text) ? '' : '; it is taken relative to the working directory'}`
      : `URLs of type ${scheme} are not read: read it yourself and pass the bytes`;
  return new SparseVilaError(
    'ERR_IMAGE_NOT_FOUND',
    `Expected an existing file for ${name} but there is none; ${advice}.`,
  );
}
