// Waiting that an AbortSignal can end. There is one listener per signal for any amount of waiting work, because Node warns of a leak from eleven
// listeners on.

const WAITING = new WeakMap<AbortSignal, { readonly callbacks: Set<() => void>; readonly listener: () => void }>();

/** Calls `then` when `signal`, which is not aborted yet, aborts; returns a function that cancels this. */
export function onAbort(signal: AbortSignal, then: () => void): () => void {
  const { callbacks, listener } = WAITING.get(signal) ?? listen(signal);
  // A separate entry, because the same function may wait twice.
  const callback = (): void => then();
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
    if (callbacks.size > 0) return;
    signal.removeEventListener('abort', listener);
    WAITING.delete(signal);
  };
}

function listen(signal: AbortSignal) {
  const callbacks = new Set<() => void>();
  const listener = (): void => {
    WAITING.delete(signal);
    for (const callback of [...callbacks]) callback();
  };
  signal.addEventListener('abort', listener, { once: true });
  const waiting = { callbacks, listener };
  WAITING.set(signal, waiting);
  return waiting;
}

/** Rejects with the signal's reason as soon as it aborts, even if `work` is still running. */
export async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  let takeBack: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    const stop = (): void => reject(signal.reason);
    if (signal.aborted) stop();
    else takeBack = onAbort(signal, stop);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    takeBack?.();
  }
}
