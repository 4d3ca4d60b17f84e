// A pacer: ops run on the JavaScript thread, so long work regularly yields to the event loop and checks its AbortSignal.

const HOLD_MS = 12;

/** A function that yields to the event loop if it has been blocked for a while, and throws if `signal` is aborted. */
export function pacer(signal?: AbortSignal): () => Promise<void> {
  let last = performance.now();
  return async () => {
    if (performance.now() - last > HOLD_MS) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      last = performance.now();
    }
    signal?.throwIfAborted();
  };
}
