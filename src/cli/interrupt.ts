// Ctrl-C (SIGINT), SIGTERM and SIGHUP as an AbortSignal. The first one aborts the work; the second one, or one second later, ends the
// process.

import { signalExit } from './usage';

export const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Fulfilled when a signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Milliseconds that work may take to stop. Everything that must persist is on disk by then, as after `kill -9`. */
export const PATIENCE_MS = 800;

/**
 * Runs `work` until it ends or a signal stops it. After a signal: prints a line on stderr, sets the exit code 128 + signal, returns undefined.
 * Other errors are rethrown. `last` is printed if the process is ended before the work has stopped.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>, last = ''): Promise<T | undefined> {
  const controller = new AbortController();
  let exit = 0;
  const stop = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(exit);
    exit = signalExit(signal);
    controller.abort();
    setTimeout(() => {
      process.stderr.write(`sparsevila: stopped.\n${last}`);
      process.exit(exit);
    }, PATIENCE_MS).unref();
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    return await work(controller.signal);
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    process.stderr.write(`sparsevila: stopped.\n${last}`);
    process.exitCode = exit;
    return undefined;
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}
