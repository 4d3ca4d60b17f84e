// The forms in which a caller may hand in an image, and how they are told apart. Knows nothing about reading or decoding them.

import { types } from 'node:util';
import { received, SparseVilaError } from '../errors';

/** Pixels already decoded: uint8, row-major HWC; channels 1 = gray, 3 = RGB, 4 = RGBA (alpha not premultiplied). */
export type RawPixels = { data: Uint8Array | Uint8ClampedArray; width: number; height: number; channels: 1 | 3 | 4 };

/** A `Blob` or `File` of any library. */
export interface BlobLike {
  readonly size: number;
  readonly type: string;
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** A `URL` of any library. */
export interface UrlLike {
  readonly href: string;
  readonly protocol: string;
}

/** A WHATWG `ReadableStream` of bytes. */
export interface ByteStream {
  getReader(): { read(): Promise<{ done: boolean; value?: unknown }>; cancel(reason?: unknown): Promise<void> };
}

/** The pieces of a stream, one by one; `cancel` gives it up, also while a piece is awaited. */
export interface Pieces {
  next(): Promise<{ done?: boolean | undefined; value?: unknown }>;
  cancel(): void;
}

/**
 * An image: a path, a URL (`file:`, `data:`; `http:` and `https:` where `allowUrls` allows it) as text or object, base64 as text, the bytes of
 * an encoded image (Buffer, ArrayBuffer, any view of one, Blob, File), a stream of these bytes (Node's or the web's), or raw pixels. Text is
 * base64 where no file has that name and it decodes to the signature of an image. A stream can be read once only.
 */
export type ImageInput =
  | string
  | UrlLike
  | ArrayBufferView
  | ArrayBufferLike
  | BlobLike
  | ByteStream
  | AsyncIterable<unknown>
  | RawPixels;

/** What an image comes from, told apart. */
export type ImageSource =
  | { readonly kind: 'pixels'; readonly pixels: RawPixels }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'blob'; readonly blob: BlobLike }
  | { readonly kind: 'stream'; readonly open: () => Pieces }
  | { readonly kind: 'text'; readonly text: string };

/**
 * Tells the forms of an image apart without reading any.
 * @throws SparseVilaError ERR_IMAGE_INVALID for anything that is no image
 */
export function sourceOf(input: unknown): ImageSource {
  if (typeof input === 'string') return { kind: 'text', text: input };
  if (ArrayBuffer.isView(input))
    return { kind: 'bytes', bytes: bytesOf(input.buffer, input.byteOffset, input.byteLength) };
  if (types.isAnyArrayBuffer(input)) return { kind: 'bytes', bytes: bytesOf(input, 0, input.byteLength) };
  if (typeof input === 'object' && input !== null && !types.isProxy(input)) {
    try {
      const known = sourceOfObject(input as Readonly<Record<PropertyKey, unknown>>);
      if (known !== undefined) return known;
    } catch {
      // A getter that throws: not an image.
    }
  }
  throw new SparseVilaError(
    'ERR_IMAGE_INVALID',
    `Expected a path, a URL, bytes (Buffer, ArrayBuffer, Blob, stream) or {data, width, height, channels} for image but received ${described(input)}.`,
  );
}

function sourceOfObject(input: Readonly<Record<PropertyKey, unknown>>): ImageSource | undefined {
  if ('data' in input && 'width' in input) {
    const { data, width, height, channels } = input;
    return { kind: 'pixels', pixels: { data, width, height, channels } as RawPixels };
  }
  const { href, protocol, size, type, arrayBuffer, getReader } = input;
  if (typeof href === 'string' && typeof protocol === 'string') return { kind: 'text', text: href };
  if (typeof size === 'number' && typeof type === 'string' && typeof arrayBuffer === 'function') {
    return { kind: 'blob', blob: input as unknown as BlobLike };
  }
  if (typeof getReader === 'function') return { kind: 'stream', open: () => piecesOf(input as unknown as ByteStream) };
  if (typeof input[Symbol.asyncIterator] === 'function') {
    return { kind: 'stream', open: () => iterated(input as unknown as AsyncIterable<unknown>) };
  }
  return undefined;
}

/** A view of the bytes; a copy of shared memory, which another thread may change while it is decoded. */
function bytesOf(buffer: ArrayBufferLike, offset: number, length: number): Uint8Array {
  const view = new Uint8Array(buffer, offset, length);
  return types.isSharedArrayBuffer(buffer) ? view.slice() : view;
}

/** The pieces of a web stream. */
export function piecesOf(stream: ByteStream): Pieces {
  const reader = stream.getReader();
  return { next: () => reader.read(), cancel: () => void reader.cancel().catch(() => undefined) };
}

/** The pieces of a Node stream or of any asynchronous iterable. The iterator of a Node stream does not end while it waits: destroy does. */
export function iterated(chunks: AsyncIterable<unknown> & { destroy?: unknown }): Pieces {
  const iterator = chunks[Symbol.asyncIterator]();
  return {
    next: () => iterator.next(),
    cancel: () => {
      if (typeof chunks.destroy === 'function') chunks.destroy();
      else iterator.return?.()?.then(undefined, () => undefined);
    },
  };
}

/** A value for an error: of an object its type, of anything else the value and its type. */
export function described(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'function') return 'a function';
  if (typeof value !== 'object') return `${received(value)} of type ${typeof value}`;
  if (types.isProxy(value)) return 'a proxy';
  return `an object of type ${Object.prototype.toString.call(value) === '[object Object]' ? nameOf(value) : Object.prototype.toString.call(value).slice(8, -1)}`;
}

function nameOf(value: object): string {
  const maker: unknown = value.constructor;
  return typeof maker === 'function' && typeof maker.name === 'string' ? maker.name : 'Object';
}
