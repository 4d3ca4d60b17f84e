// The thread of an engine: loads the model, answers what is posted to it, and ends.

import { parentPort, workerData } from 'node:worker_threads';
import { loadByName } from '../models/by_name';
import type { LoadOptions } from '../models/model';
import { type Core, openCore } from './core';
import { type FromThread, sentError, type ThreadData, type ToThread, writeStats } from './protocol';

const { name, options, hasProgress, stats } = workerData as ThreadData;

function post(message: FromThread): void {
  parentPort?.postMessage(message);
}

async function open(): Promise<Core> {
  const { kv, contextLength, sparsity, memoryBytes, maxRunning, maxWaiting, ...load } = options;
  const onProgress: LoadOptions['onProgress'] = (progress) => post({ type: 'progress', progress });
  return openCore(name, await loadByName(name, { ...load, ...(hasProgress && { onProgress }) }), options);
}

function serve(core: Core): void {
  const running = new Map<number, AbortController>();
  const work = async (id: number, answer: (signal: AbortSignal) => Promise<FromThread>): Promise<void> => {
    const aborter = new AbortController();
    running.set(id, aborter);
    const last = await answer(aborter.signal).catch(
      (error): FromThread => ({ type: 'error', id, error: sentError(error) }),
    );
    running.delete(id);
    writeStats(stats, core.stats());
    post(last);
  };
  const begin = ({ id, request, type }: Extract<ToThread, { request: object }>): void => {
    void work(id, async (signal) => {
      if (type === 'count') return { type: 'done', id, counts: await core.count(request, signal) };
      await core.answer(request, signal, (event) => {
        writeStats(stats, core.stats());
        post({ type: 'event', id, event });
      });
      return { type: 'done', id };
    });
    writeStats(stats, core.stats());
  };
  const receive = (message: ToThread): void => {
    if (message.type === 'abort') running.get(message.id)?.abort();
    else if (message.type === 'close') void core.close().then(() => post({ type: 'closed' }));
    else begin(message);
  };
  parentPort?.on('message', receive);
}

open().then(
  (core) => {
    serve(core);
    post({ type: 'open', model: core.model });
  },
  (error) => post({ type: 'refused', error: sentError(error) }),
);
