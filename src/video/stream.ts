// A stream of frames of the caller's, such as a camera's: it may fail, or give no frame for as long as it likes.

import { abortable } from '../abort';
import { messageOf, SparseVilaError } from '../errors';

/**
 * The frames of a stream. It is closed when no more are read.
 * @throws SparseVilaError `ERR_VIDEO_UNREADABLE` if it fails; `signal.reason`
 */
export async function* readStream<T>(frames: AsyncIterable<T>, signal: AbortSignal | undefined): AsyncGenerator<T> {
  let source: AsyncIterator<T> | undefined;
  const close = async (): Promise<void> => void (await source?.return?.());
  try {
    const iterator = frames[Symbol.asyncIterator]();
    source = iterator;
    for (;;) {
      const next = await abortable((async () => iterator.next())(), signal);
      if (next.done === true) {
        source = undefined;
        return;
      }
      yield next.value;
    }
  } catch (error) {
    // A generator closes only after the frame that it is waiting for.
    close().catch(() => undefined);
    source = undefined;
    if (error instanceof SparseVilaError || signal?.aborted) throw error;
    throw new SparseVilaError(
      'ERR_VIDEO_UNREADABLE',
      `Expected a readable stream of frames but reading it failed with ${messageOf(error)}; a stream can be read once only.`,
      { cause: error },
    );
  } finally {
    await abortable(
      close().catch(() => undefined),
      signal,
    );
  }
}
