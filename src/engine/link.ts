// The connection to the thread of an engine: requests are posted, and what comes back finds its request.

import type { Worker } from 'node:worker_threads';
import { onAbort } from '../abort';
import { messageOf, SparseVilaError } from '../errors';
import { invalidOption } from '../options';
import { type FromThread, type Progress, receivedError, type ToThread } from './protocol';
import type { EngineEvent, EngineModel, TokenCounts } from './types';

export interface Question {
  readonly type: 'run' | 'count';
  /** Plain data. */
  readonly request: object;
  /** Buffers that move to the thread. */
  readonly transfer: readonly ArrayBuffer[];
  readonly signal: AbortSignal;
  onEvent(event: EngineEvent): void;
}

export interface Link {
  /** The model, once it is loaded. */
  readonly opened: Promise<EngineModel>;
  /** Aborted when the thread ends without `close` or `kill`; the reason is ERR_ENGINE_ENDED. */
  readonly ended: AbortSignal;
  /** Posts a request and waits for its end; events that come after an abort are dropped. @throws SparseVilaError; the reason of the signal */
  ask(question: Question): Promise<TokenCounts | undefined>;
  /** Ends the thread after the requests that it has. */
  close(): Promise<void>;
  /** Ends the thread now. */
  kill(): Promise<void>;
}

/** The connection to a thread that runs `thread.ts`. Only while it has requests does the thread keep the process alive. */
export function linkTo(worker: Worker, onProgress: (progress: Progress) => void): Link {
  const opening = deferred<EngineModel>();
  const closing = deferred<void>();
  const requests = postedRequests(worker);
  const ended = new AbortController();
  let isExpected = false;
  const end = (cause: unknown): void => {
    const error = endedError(cause);
    opening.reject(error);
    closing.resolve();
    requests.end(error);
    if (!isExpected) ended.abort(error);
  };
  worker.on('error', end);
  worker.on('exit', () => end(undefined));
  worker.on('message', (message: FromThread) => {
    if (message.type === 'progress') {
      try {
        onProgress(message.progress);
      } catch (error) {
        opening.reject(error);
      }
    } else if (message.type === 'open') {
      opening.resolve(message.model);
      worker.unref();
    } else if (message.type === 'refused') opening.reject(receivedError(message.error));
    else if (message.type === 'closed') closing.resolve();
    else requests.receive(message);
  });
  const kill = async (): Promise<void> => {
    isExpected = true;
    await worker.terminate();
  };
  const close = async (): Promise<void> => {
    worker.ref();
    post(worker, { type: 'close' });
    await closing.promise;
    await kill();
  };
  return { opened: opening.promise, ended: ended.signal, ask: requests.ask, close, kill };
}

type Answer = Extract<FromThread, { readonly id: number }>;

/** The requests that a thread has and has not answered. */
function postedRequests(worker: Worker) {
  const receivers = new Map<number, (answer: Answer | { readonly type: 'ended' }) => void>();
  let ids = 0;
  let ended: SparseVilaError | undefined;
  const ask = async ({ type, request, transfer, signal, onEvent }: Question): Promise<TokenCounts | undefined> => {
    if (ended !== undefined) throw ended;
    signal.throwIfAborted();
    const id = ids++;
    post(worker, { type, id, request } as ToThread, transfer);
    worker.ref();
    let takeBack: (() => void) | undefined;
    try {
      return await new Promise((resolve, reject) => {
        takeBack = onAbort(signal, () => {
          post(worker, { type: 'abort', id });
          reject(signal.reason);
        });
        receivers.set(id, (answer) => {
          if (answer.type === 'event') return signal.aborted || onEvent(answer.event);
          if (answer.type === 'done') resolve(answer.counts);
          else reject(answer.type === 'error' ? receivedError(answer.error) : ended);
          return undefined;
        });
      });
    } finally {
      takeBack?.();
    }
  };
  return {
    ask,
    receive: (answer: Answer): void => {
      receivers.get(answer.id)?.(answer);
      if (answer.type === 'event') return;
      receivers.delete(answer.id);
      if (receivers.size === 0) worker.unref();
    },
    end: (error: SparseVilaError): void => {
      ended ??= error;
      for (const receive of receivers.values()) receive({ type: 'ended' });
      receivers.clear();
    },
  };
}

function post(worker: Worker, message: ToThread, transfer: readonly ArrayBuffer[] = []): void {
  try {
    worker.postMessage(message, [...transfer]);
  } catch (error) {
    const found = `something that cannot be posted to a thread (${messageOf(error)})`;
    throw invalidOption('run', 'plain data and pictures', found);
  }
}

function endedError(cause: unknown): SparseVilaError {
  const why = cause === undefined ? 'its thread was stopped' : messageOf(cause);
  return new SparseVilaError('ERR_ENGINE_ENDED', `The engine has ended: ${why}. Open it again with openEngine.`, {
    cause,
  });
}

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

function deferred<T>(): Deferred<T> {
  const made: { resolve?: (value: T) => void; reject?: (error: unknown) => void } = {};
  const promise = new Promise<T>((resolve, reject) => {
    Object.assign(made, { resolve, reject });
  });
  promise.catch(() => undefined); // It may be rejected before anyone waits for it.
  return { promise, ...made } as Deferred<T>;
}
