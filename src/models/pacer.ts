// A pacer: ops run on the JavaScript thread, so long work yields to the event loop now and then, and looks at its AbortSignal there.

const HOLD_MS = 12;

/** A function that yields to the event loop when it has been held for a while, and throws once `signal` is aborted. */
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
