// The engine of a thread, for its opener.

import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { abortable, onAbort } from '../abort';
import { coded, SparseVilaError } from '../errors';
import { BOOLEAN, type Checks, checkOptions, guardedCallback, SIGNAL } from '../options';
import { type Link, linkTo } from './link';
import { plainData } from './plain_data';
import { readStats, statsMemory, type ThreadData } from './protocol';
import { checkFields } from './request';
import { eventStream } from './stream';
import type { Engine, EngineEvent, EngineModel, EngineOptions, RunOptions, TokenCounts } from './types';

const RUN: Checks<RunOptions> = { signal: SIGNAL, transfer: BOOLEAN };

/** Opens an engine in a thread of its own. @throws SparseVilaError as `load`; `ERR_ENGINE_ENDED`; `ERR_CALLBACK`; `signal.reason` */
export async function openThread(name: string, { signal, onProgress, ...options }: EngineOptions): Promise<Engine> {
  signal?.throwIfAborted();
  const stats = statsMemory();
  const workerData: ThreadData = { name, options, hasProgress: onProgress !== undefined, stats };
  const worker = new Worker(join(__dirname, 'thread.js'), { workerData });
  const report = onProgress === undefined ? () => undefined : guardedCallback('onProgress', onProgress);
  const link = linkTo(worker, report);
  try {
    const model = await abortable(link.opened, signal);
    return engineOf(link, model, () => readStats(stats));
  } catch (error) {
    await link.kill();
    throw error;
  }
}

function engineOf(link: Link, model: EngineModel, stats: Engine['stats']): Engine {
  const open = openRequests(model.name);
  const run: Engine['run'] = (request, options) => {
    const aborter = new AbortController();
    const stream = eventStream<EngineEvent>(() => aborter.abort(new Error('The reader left.')));
    const answer = async ({ transfer = false }: RunOptions): Promise<void> => {
      const plain = await plainData(checkFields(request), { transfer, signal: aborter.signal });
      const posted = { request: plain.data, transfer: plain.transfer, signal: aborter.signal };
      await link.ask({ type: 'run', ...posted, onEvent: stream.push });
    };
    open.track(answer, aborter, options).then(stream.end, stream.fail);
    return stream.events;
  };
  const count: Engine['count'] = (request, options) => {
    const aborter = new AbortController();
    return open.track(
      async () => {
        const plain = await plainData(checkFields(request), { transfer: false, signal: aborter.signal });
        const posted = { request: plain.data, transfer: plain.transfer, signal: aborter.signal };
        return (await link.ask({ type: 'count', ...posted, onEvent: () => undefined })) as TokenCounts;
      },
      aborter,
      options,
    );
  };
  let closing: Promise<void> | undefined;
  const close: Engine['close'] = ({ drain = false } = {}) => {
    const ended = open.close(drain);
    closing ??= ended.then(link.close);
    return closing;
  };
  return { model, ended: link.ended, run, count, stats, close, [Symbol.asyncDispose]: () => close() };
}

/** The requests of an engine that have not ended. */
function openRequests(name: string) {
  const running = new Map<AbortController, Promise<unknown>>();
  const closed = new SparseVilaError('ERR_DISPOSED', `The engine of ${name} has been closed. Open it again.`);
  let isClosed = false;
  return {
    /** Runs `work` while `aborter` follows the signal of the caller's options. @throws what `work` throws, coded; the reason of an abort */
    async track<T>(
      work: (options: RunOptions) => Promise<T>,
      aborter: AbortController,
      options: RunOptions | undefined,
    ): Promise<T> {
      const checked = checkOptions<RunOptions>('run', options, RUN);
      const { signal } = checked;
      if (isClosed) throw closed;
      signal?.throwIfAborted();
      const takeBack = signal === undefined ? undefined : onAbort(signal, () => aborter.abort(signal.reason));
      const result = work(checked);
      running.set(aborter, result);
      try {
        return await result;
      } catch (error) {
        throw aborter.signal.aborted ? aborter.signal.reason : coded(error);
      } finally {
        running.delete(aborter);
        takeBack?.();
      }
    },
    /** Accepts no more; waits for those that run, or ends them. */
    async close(drain: boolean): Promise<void> {
      isClosed = true;
      if (!drain) for (const aborter of running.keys()) aborter.abort(closed);
      await Promise.allSettled(running.values());
    },
  };
}
