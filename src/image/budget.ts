// One memory budget for all images that are decoded at the same time. Images queue in the order of arrival, and only the first of the queue
// is read before there is room, so that at most one encoded image waits in memory and none waits indefinitely. Knows no images, only bytes.

import { abortable } from '../abort';

/** Bytes that all running decodes may take together. An image that alone exceeds it runs alone. */
export const DECODE_MEMORY = 2 ** 30;

export interface Admitted<T> {
  readonly seen: T;
  /** Returns the memory to the budget; a second call does nothing. */
  release(): void;
}

/** A budget of `limit` bytes. */
export function memoryBudget(limit: number) {
  let used = 0;
  let entrance: Promise<unknown> = Promise.resolve();
  let onRoom: (() => void) | undefined;

  /** Reserves bytes for the first of the queue, as soon as there is room. */
  async function reserve(bytes: number, signal: AbortSignal | undefined): Promise<() => void> {
    while (used > 0 && used + bytes > limit) {
      const room = new Promise<void>((resolve) => {
        onRoom = resolve;
      });
      await abortable(room, signal);
    }
    used += bytes;
    let isHeld = true;
    return () => {
      if (isHeld) used -= bytes;
      isHeld = false;
      onRoom?.();
    };
  }

  return {
    /**
     * Waits for its turn, calls `look`, which determines how much memory is needed (`cost`, in bytes), and waits until that much is free.
     * @throws errors of `look`; `signal.reason` if the signal is aborted by its turn or while it waits for room
     */
    admit<T extends { readonly cost: number }>(
      look: () => Promise<T>,
      signal: AbortSignal | undefined,
    ): Promise<Admitted<T>> {
      const enter = async (): Promise<Admitted<T>> => {
        signal?.throwIfAborted();
        const seen = await look();
        return { seen, release: await reserve(seen.cost, signal) };
      };
      const admitted = entrance.then(enter);
      entrance = admitted.catch(() => undefined);
      return admitted;
    },
  };
}
