// Waiting that an AbortSignal can end.

import { onAbort } from '../abort';

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
