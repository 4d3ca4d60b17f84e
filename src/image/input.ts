// The forms of image input, and how they are told apart. Knows nothing about reading or decoding them.

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

/** The pieces of a stream, one by one; `cancel` abandons it, even while a piece is awaited. */
export interface Pieces {
  next(): Promise<{ done?: boolean | undefined; value?: unknown }>;
  cancel(): void;
}

/**
 * An image: a path, a URL (`file:`, `data:`; `http:` and `https:` if `allowUrls` allows it) as text or object, base64 text, the bytes of an
 * encoded image (Buffer, ArrayBuffer, any view of one, Blob, File), a stream of such bytes (Node's or the web's), or raw pixels. Text is taken
 * as base64 if no file has that name and it decodes to the signature of an image. A stream can be read only once.
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

/** An image input by its kind. */
export type ImageSource =
  | { readonly kind: 'pixels'; readonly pixels: RawPixels }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'blob'; readonly blob: BlobLike }
  | { readonly kind: 'stream'; readonly open: () => Pieces }
  | { readonly kind: 'text'; readonly text: string };

/**
 * Determines the kind of an image input without reading it.
 * @throws SparseVilaError ERR_IMAGE_INVALID for any other value
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
      // A getter threw: not an image.
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

/** A view of the bytes; a copy of shared memory, because another thread may change that during decoding. */
function bytesOf(buffer: ArrayBufferLike, offset: number, length: number): Uint8Array {
  const view = new Uint8Array(buffer, offset, length);
  return types.isSharedArrayBuffer(buffer) ? view.slice() : view;
}

/** The pieces of a web stream. */
export function piecesOf(stream: ByteStream): Pieces {
  const reader = stream.getReader();
  return { next: () => reader.read(), cancel: () => void reader.cancel().catch(() => undefined) };
}

/** The pieces of a Node stream or any other async iterable. Ending the iterator of a waiting Node stream has no effect, so it is destroyed. */
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

/** Describes a value for an error: the type of an object; of anything else the value and its type. */
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
