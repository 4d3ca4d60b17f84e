// When the work for a request ends: with its answer, when the client leaves, or when its time is over.

import type { ServerResponse } from 'node:http';
import { type Places, RequestError, requestErrorOf } from './request_error';

export interface RequestLife {
  /** Aborts the work; its reason is a RequestError. */
  readonly signal: AbortSignal;
  /** Whether the client has left, so that nobody reads an answer. */
  readonly isLeft: () => boolean;
  /** The paths of the media that have been read so far, for errors. */
  readonly media: string[];
  /** The answer to an error: why the work was aborted, or else what is wrong with the request, with the path of the field. */
  refusalOf(error: unknown): RequestError;
  /** Ends the other work of the request when a part of it failed. */
  abort(reason: unknown): void;
  /** Forgets the request; call it when its work is done. */
  end(): void;
}

interface LifeOptions {
  readonly answerMs: number;
  /** The fields of the body that have the messages and the form of the answer. */
  readonly fields: Pick<Places, 'messages' | 'format'>;
  /** Receives unexpected errors. */
  readonly log: (error: unknown) => void;
}

/** Watches the connection of a response, which is not finished yet. */
export function requestLife(response: ServerResponse, { answerMs, fields, log }: LifeOptions): RequestLife {
  const controller = new AbortController();
  const media: string[] = [];
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
    media,
    refusalOf: (error) => {
      const isOther = error instanceof RequestError || !controller.signal.aborted;
      return requestErrorOf(isOther ? error : controller.signal.reason, log, { ...fields, media });
    },
    abort: (reason) => controller.abort(reason),
    end: () => {
      clearTimeout(timer);
      response.off('close', onClose);
    },
  };
}
