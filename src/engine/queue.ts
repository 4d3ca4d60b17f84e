// Admission: how many requests are answered at once, in the order of their arrival, and how many may wait.

import { SparseVilaError } from '../errors';

export interface Queue {
  readonly running: number;
  readonly waiting: number;
  /**
   * Waits for a place, which the returned function gives back.
   * @throws SparseVilaError `ERR_ENGINE_FULL` if too many wait already; `signal.reason`
   */
  enter(signal: AbortSignal): Promise<() => void>;
  /** Waits until nobody runs or waits. */
  idle(): Promise<void>;
}

export function queue({ maxRunning, maxWaiting }: { maxRunning: number; maxWaiting: number }): Queue {
  const waiting: (() => void)[] = [];
  const idle: (() => void)[] = [];
  let running = 0;
  const admit = (): void => {
    while (running < maxRunning && waiting.length > 0) {
      running++;
      waiting.shift()?.();
    }
    if (running === 0) for (const wake of idle.splice(0)) wake();
  };
  const place = (): (() => void) => {
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      running--;
      admit();
    };
  };
  return {
    get running() {
      return running;
    },
    get waiting() {
      return waiting.length;
    },
    enter: (signal) =>
      new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        if (running >= maxRunning && waiting.length >= maxWaiting) return reject(full(running, waiting.length));
        const leave = (): void => {
          waiting.splice(waiting.indexOf(begin), 1);
          reject(signal.reason);
        };
        const begin = (): void => {
          signal.removeEventListener('abort', leave);
          resolve(place());
        };
        signal.addEventListener('abort', leave, { once: true });
        waiting.push(begin);
        admit();
      }),
    idle: () => (running === 0 ? Promise.resolve() : new Promise((resolve) => idle.push(resolve))),
  };
}

function full(running: number, waiting: number): SparseVilaError {
  return new SparseVilaError(
    'ERR_ENGINE_FULL',
    `Expected room for another request, but ${running} are answered and ${waiting} wait. Try again later, or raise maxRunning or maxWaiting.`,
  );
}
