// A request as data that can be posted to a thread: pictures become bytes that are moved, not copied again.

import { types } from 'node:util';
import { received } from '../errors';
import { sourceOf } from '../image/input';
import { DEFAULT_MAX_PIXELS } from '../image/limits';
import { openImage } from '../image/source';
import { invalidOption } from '../options';

export interface PlainData<T> {
  readonly data: T;
  /** Buffers that move to the thread. */
  readonly transfer: readonly ArrayBuffer[];
}

export interface PlainOptions {
  /** Whether the caller's own buffers are moved where that is possible; they are empty afterwards. */
  readonly transfer: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Bytes of an encoded picture per pixel, and in addition to its pixels, as `decodeImage` allows them. */
const MOST_BYTES = DEFAULT_MAX_PIXELS * 8 + 2 ** 26;

/**
 * Copies a value of lists and plain objects, with pictures in them. Bytes are copied once, or moved; a stream is read to its end.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for a value that cannot be read, `ERR_IMAGE_…`; `signal.reason`
 */
export async function plainData<T>(value: T, options: PlainOptions): Promise<PlainData<T>> {
  const transfer = new Set<ArrayBuffer>();
  const move = (bytes: Uint8Array<ArrayBuffer>): Uint8Array => {
    transfer.add(bytes.buffer);
    return bytes;
  };
  const copy = async (one: unknown): Promise<unknown> => {
    if (typeof one !== 'object' || one === null) return one;
    const fields = fieldsOf(one);
    if (Array.isArray(one)) return inOrder(fields, ([, item]) => copy(item));
    if (ArrayBuffer.isView(one)) return bytesOf(one.buffer, one.byteOffset, one.byteLength);
    if (types.isAnyArrayBuffer(one)) return bytesOf(one, 0, one.byteLength);
    if (isPlain(one)) {
      const values = await inOrder(fields, ([key, field]) => (key === 'frames' ? frames(field) : copy(field)));
      return Object.fromEntries(fields.map(([key], i) => [key, values[i]]));
    }
    if (one instanceof Blob) return one;
    const source = sourceOf(one);
    if (source.kind === 'text') return source.text;
    if (source.kind === 'pixels') return copy({ ...source.pixels });
    const limits = { maxBytes: MOST_BYTES, allowUrls: false, signal: options.signal };
    const { bytes } = await (await openImage(source, limits))();
    return bytesOf(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
  /** A stream of frames becomes a list. */
  const frames = async (given: unknown): Promise<unknown> => {
    if (typeof given !== 'object' || given === null || !(Symbol.asyncIterator in given)) return copy(given);
    const list: unknown[] = [];
    for await (const frame of given as AsyncIterable<unknown>) {
      options.signal?.throwIfAborted();
      list.push(await copy(frame));
    }
    return list;
  };
  const bytesOf = (buffer: ArrayBufferLike, offset: number, length: number): Uint8Array => {
    // The thread copies shared memory before it reads it.
    if (types.isSharedArrayBuffer(buffer)) return new Uint8Array(buffer, offset, length);
    const view = new Uint8Array(buffer as ArrayBuffer, offset, length);
    const isWhole = offset === 0 && length === buffer.byteLength;
    return move(options.transfer && isWhole && !isPooled(buffer) ? view : view.slice());
  };
  const data = (await copy(value)) as T;
  return { data, transfer: [...transfer] };
}

async function inOrder<T, R>(values: readonly T[], work: (value: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (const value of Array.from(values)) results.push(await work(value));
  return results;
}

/** Whether a buffer may be Node's pool for small Buffers, which cannot be moved. */
const isPooled = (buffer: ArrayBufferLike): boolean => buffer.byteLength === Buffer.poolSize;

/**
 * What a list or a plain object holds, each value read once; of any other object nothing.
 * @throws SparseVilaError `ERR_OPTION_INVALID` if reading it throws, as of a getter or a revoked proxy
 */
function fieldsOf(value: object): readonly (readonly [string, unknown])[] {
  try {
    if (Array.isArray(value)) return Array.from(value, (item, i) => [String(i), item] as const);
    return isPlain(value) ? Object.entries(value) : [];
  } catch {
    throw invalidOption('run', 'values that can be read', received(value));
  }
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  // Plain objects of any realm.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}
