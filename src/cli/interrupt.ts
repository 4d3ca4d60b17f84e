// Ctrl-C (SIGINT), SIGTERM and SIGHUP as an AbortSignal. The first stops the work where it can be stopped; the second, or a second of
// patience, ends the process.

import { signalExit } from './usage';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** How long work may take to stop. Whatever is promised to be kept is on the disk already, as after a `kill -9`. */
export const PATIENCE_MS = 800;

/**
 * Runs `work` until it ends or a signal stops it. Once stopped: a line on stderr, exit code 128 + signal, and undefined.
 * Other errors pass through. `last` is said as well where the work had to be given up.
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
