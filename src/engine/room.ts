// Memory of the machine for the KV caches of running requests: a request begins when its rows have room, in the order of arrival.

import { freemem } from 'node:os';
import { onAbort } from '../abort';
import { SparseVilaError } from '../errors';

export interface Room {
  /**
   * Waits for memory for a cache that will take `need` bytes; the returned function gives it back.
   * @param written how many of these bytes are written by now
   * @throws SparseVilaError `ERR_OUT_OF_MEMORY` if nothing that runs could make room; `signal.reason`
   */
  admit(need: number, written: () => number, signal: AbortSignal): Promise<() => void>;
}

export interface RoomOptions {
  /** Bytes that the machine has left. */
  free(): number;
  /** Removes something from memory; returns its bytes, 0 if there is nothing. */
  evict(): number;
}

/** What this process may still take: of the machine, or of its control group. */
export function freeMemory(): number {
  return process.availableMemory?.() ?? freemem();
}

interface Waiting {
  readonly need: number;
  readonly written: () => number;
  begin(): void;
  refuse(error: unknown): void;
}

export function room({ free, evict }: RoomOptions): Room {
  const held = new Set<Pick<Waiting, 'need' | 'written'>>();
  const waiting: Waiting[] = [];
  const hasRoom = (need: number): boolean => {
    // What was promised to others and is not written yet is free only for them.
    let left = free();
    for (const one of held) left -= Math.max(0, one.need - one.written());
    while (left < need) {
      const freed = evict();
      if (freed === 0) return false;
      left += freed;
    }
    return true;
  };
  const admitNext = (): void => {
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      const fits = hasRoom(next.need);
      if (!fits && held.size > 0) return;
      waiting.shift();
      if (fits) next.begin();
      else next.refuse(tooLarge(next.need, free()));
    }
  };
  const hold = (one: Pick<Waiting, 'need' | 'written'>): (() => void) => {
    held.add(one);
    return () => {
      held.delete(one);
      admitNext();
    };
  };
  return {
    admit: (need, written, signal) =>
      new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        const takeBack = onAbort(signal, () => {
          waiting.splice(waiting.indexOf(one), 1);
          reject(signal.reason);
        });
        const one: Waiting = {
          ...{ need, written },
          begin: () => {
            takeBack();
            resolve(hold({ need, written }));
          },
          refuse: (error) => {
            takeBack();
            reject(error);
          },
        };
        waiting.push(one);
        if (waiting.length === 1) admitNext();
      }),
  };
}

function tooLarge(need: number, free: number): SparseVilaError {
  const [wanted, there] = [need, free].map((bytes) => `${Math.ceil(bytes / 2 ** 20)} MiB`);
  return new SparseVilaError(
    'ERR_OUT_OF_MEMORY',
    `Expected ${wanted} of free memory for the request's KV cache, found ${there}. Ask for fewer tokens or smaller pictures, or lower contextLength.`,
  );
}
