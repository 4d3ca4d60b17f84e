// When the work for a request ends: with its answer, when the client leaves, or when its time is over.

import type { ServerResponse } from 'node:http';
import { RequestError } from './request_error';

export interface RequestLife {
  /** Aborts the work; its reason is a RequestError. */
  readonly signal: AbortSignal;
  /** Whether the client has left, so that nobody reads an answer. */
  readonly isLeft: () => boolean;
  /** Why the work ended: the signal's reason if it was aborted, otherwise `error`. */
  reasonOf(error: unknown): unknown;
  /** Ends the other work of the request when a part of it failed. */
  abort(reason: unknown): void;
  /** Forgets the request; call it when its work is done. */
  end(): void;
}

/** Watches the connection of a response, which is not finished yet. */
export function requestLife(response: ServerResponse, answerMs: number): RequestLife {
  const controller = new AbortController();
  let isLeft = false;
  const timer = setTimeout(() => {
    const message = `The answer took longer than ${answerMs / 1000} seconds, which is this server's limit.`;
    controller.abort(new RequestError(504, message, { code: 'timeout' }));
  }, answerMs);
  const onClose = (): void => {
    clearTimeout(timer);
    if (response.writableFinished) return;
    isLeft = true;
    // Nobody reads it; 499 as nginx counts clients that leave.
    controller.abort(new RequestError(499, 'The client has left.'));
  };
  if (response.destroyed) onClose();
  else response.once('close', onClose);
  return {
    signal: controller.signal,
    isLeft: () => isLeft,
    reasonOf: (error) =>
      error instanceof RequestError || !controller.signal.aborted ? error : controller.signal.reason,
    abort: (reason) => controller.abort(reason),
    end: () => {
      clearTimeout(timer);
      response.off('close', onClose);
    },
  };
}
