// A stream of events from a producer that never waits for its reader: what is not read yet is kept.

export interface EventStream<T> {
  readonly events: AsyncIterableIterator<T>;
  push(event: T): void;
  /** Ends the stream after the events that were pushed. Later calls do nothing. */
  end(): void;
  /** The reader gets the error after the events that were pushed. */
  fail(error: unknown): void;
}

/** @param onLeave called when the reader leaves before the end */
export function eventStream<T>(onLeave: () => void): EventStream<T> {
  const kept: T[] = [];
  let over: { readonly error?: unknown } | undefined;
  let wake: (() => void) | undefined;
  const finish = (how: { readonly error?: unknown }): void => {
    over ??= how;
    wake?.();
  };
  const next = async (): Promise<IteratorResult<T>> => {
    for (;;) {
      const event = kept.shift();
      if (event !== undefined) return { done: false, value: event };
      if (over !== undefined) break;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const { error } = over;
    const failed = 'error' in over;
    over = {}; // An error is thrown once; the iteration is over afterwards.
    if (failed) throw error;
    return { done: true, value: undefined };
  };
  let turn: Promise<unknown> = Promise.resolve();
  const events: AsyncIterableIterator<T> = {
    next: () => {
      // One call at a time, so that events come in their order.
      const own = turn.then(next, next);
      turn = own.catch(() => undefined);
      return own;
    },
    return: async () => {
      const isLeft = over === undefined;
      kept.length = 0;
      finish({});
      over = {};
      if (isLeft) onLeave();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => events,
  };
  return {
    events,
    push: (event) => {
      if (over !== undefined) return;
      kept.push(event);
      wake?.();
    },
    end: () => finish({}),
    fail: (error) => finish({ error }),
  };
}
