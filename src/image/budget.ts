// One budget of memory for all images that are decoded at the same time. Images enter in the order of arrival, one at a time until their size
// is known: so at most one encoded image waits in memory, and none is overtaken for ever. Knows no images, only bytes.

import { abortable } from './abort';

/** Bytes that decoding may take together. An image that alone takes more runs alone. */
export const DECODE_MEMORY = 2 ** 30;

export interface Admitted<T> {
  readonly seen: T;
  /** Gives the memory back; a second call does nothing. */
  release(): void;
}

/** A budget of `limit` bytes. */
export function memoryBudget(limit: number) {
  let used = 0;
  let entrance: Promise<unknown> = Promise.resolve();
  let onRoom: (() => void) | undefined;

  /** Reserves bytes for the one at the entrance, as soon as there is room for them. */
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
     * Waits for its turn, calls `look`, which finds out what it needs (`cost`, in bytes), and waits until that is free.
     * @throws what `look` throws; `signal.reason` when its turn comes after an abort, or once aborted while it waits for room
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
