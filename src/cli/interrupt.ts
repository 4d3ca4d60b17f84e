// Ctrl-C (SIGINT) and SIGTERM as an AbortSignal. The first stops the work where it can be stopped; the second ends the process.

/** Exit code of a command that was stopped: 128 + SIGINT. */
export const STOPPED = 130;

/**
 * Runs `work` until it ends or a signal stops it. Once stopped: a line on stderr, exit code 130, and undefined.
 * Other errors pass through.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(STOPPED);
    controller.abort();
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  try {
    return await work(controller.signal);
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    process.stderr.write('sparsevila: stopped.\n');
    process.exitCode = STOPPED;
    return undefined;
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop);
  }
}
