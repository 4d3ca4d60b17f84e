// Collects the bytes of an image from a source that delivers pieces: a stream, a FIFO, a response. Size and waiting time are bounded, and
// the source is abandoned as soon as its first bytes are not an image's. Does not know where the pieces come from.

import { types } from 'node:util';
import { abortable } from '../abort';
import { messageOf, received, SparseVilaError } from '../errors';
import type { Pieces } from './input';
import { requireSupported, SIGNATURE_BYTES } from './signature';

/** Milliseconds without data after which a source is abandoned. */
export const IDLE_MS = 20_000;

export interface CollectOptions {
  /** The name of the image in errors. */
  readonly name: string;
  readonly maxBytes: number;
  readonly signal?: AbortSignal | undefined;
  /** Default IDLE_MS. */
  readonly idleMs?: number;
  /** Throws if the first bytes are not those of a file that is wanted; default: an image. */
  readonly check?: (head: Uint8Array, name: string) => void;
}

/**
 * Collects all bytes of the source that `open` opens.
 * @throws SparseVilaError ERR_IMAGE_UNSUPPORTED by the first bytes, ERR_IMAGE_TOO_LARGE, ERR_IMAGE_UNREADABLE (a piece is not bytes, no data
 *   comes in time, the source fails); `signal.reason` if aborted
 */
export async function collect(open: () => Pieces, options: CollectOptions): Promise<Uint8Array> {
  const { name, maxBytes, signal, check = requireSupported } = options;
  const parts: Uint8Array[] = [];
  let size = 0;
  let isKnown = false;
  let pieces: Pieces | undefined;
  try {
    pieces = open();
    for (;;) {
      const next = await within(pieces.next(), options);
      if (next.done === true) return Buffer.concat(parts);
      const part = partOf(next.value, name);
      size += part.byteLength;
      if (size > maxBytes) throw tooManyBytes(name, maxBytes);
      parts.push(part);
      if (!isKnown && size >= SIGNATURE_BYTES) {
        check(Buffer.concat(parts), name);
        isKnown = true;
      }
    }
  } catch (error) {
    pieces?.cancel();
    if (error instanceof SparseVilaError || signal?.aborted) throw error;
    throw new SparseVilaError(
      'ERR_IMAGE_UNREADABLE',
      `Expected a readable source for ${name} but reading it failed with ${messageOf(error)}; a stream can be read once only.`,
      { cause: error },
    );
  }
}

export function tooManyBytes(name: string, maxBytes: number): SparseVilaError {
  return new SparseVilaError(
    'ERR_IMAGE_TOO_LARGE',
    `Expected at most ${maxBytes} bytes for ${name} but there are more; raise maxPixels if it is an image of that size.`,
  );
}

function partOf(value: unknown, name: string): Uint8Array {
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (types.isAnyArrayBuffer(value)) return new Uint8Array(value);
  const hint = typeof value === 'string' ? ' (do not set an encoding)' : '';
  throw new SparseVilaError(
    'ERR_IMAGE_UNREADABLE',
    `Expected bytes from the stream for ${name} but received ${received(value)}${hint}.`,
  );
}

/** Awaits `step`, unless the signal aborts or no data comes in time. */
async function within<T>(step: Promise<T>, { name, signal, idleMs = IDLE_MS }: CollectOptions): Promise<T> {
  signal?.throwIfAborted();
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const waited = `Expected the bytes of ${name} but none came for ${idleMs / 1000} seconds; check that something writes them.`;
      reject(new SparseVilaError('ERR_IMAGE_UNREADABLE', waited));
    }, idleMs);
  });
  try {
    return await abortable(Promise.race([step, silence]), signal);
  } finally {
    clearTimeout(timer);
  }
}
