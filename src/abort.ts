// One listener per AbortSignal, however much work waits for it: Node warns of a leak from eleven listeners on.

const WAITING = new WeakMap<AbortSignal, { readonly callbacks: Set<() => void>; readonly listener: () => void }>();

/** Calls `then` once `signal`, which is not aborted yet, aborts; returns what takes that back. */
export function onAbort(signal: AbortSignal, then: () => void): () => void {
  const { callbacks, listener } = WAITING.get(signal) ?? listen(signal);
  // An entry of its own: the same function may wait twice.
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
