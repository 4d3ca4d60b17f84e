// Opens an engine: a model that answers many requests.

import type { SparseVilaError } from '../errors';
import { loadByName } from '../models/by_name';
import type { LoadOptions } from '../models/model';
import { ANYTHING, BOOLEAN, type Checks, COUNT, checkOptions, integer, NATURAL, oneOf, withCodes } from '../options';
import { type Core, closedError, openCore } from './core';
import { requestedMethod } from './request';
import { eventStream } from './stream';
import type { Engine, EngineEvent, EngineOptions } from './types';

const OPTIONS: Checks<EngineOptions> = {
  ...{ revision: ANYTHING, weights: ANYTHING, precision: ANYTHING, maxPixels: ANYTHING, template: ANYTHING },
  ...{ signal: ANYTHING, onProgress: ANYTHING, allowUrls: BOOLEAN, sparsity: ANYTHING },
  kv: oneOf('bf16', 'f32'),
  contextLength: integer(2),
  maxRunning: COUNT,
  maxWaiting: NATURAL,
};

/**
 * Opens an engine for a checkpoint folder or a model of the Hub by name, as `load` does.
 * @example
 * const engine = await openEngine(PACKAGED_MODEL);
 * const messages = [{ role: 'user', content: [{ kind: 'image', image: PACKAGED_PICTURE }, 'Where is the yellow 2?'] }];
 * for await (const event of engine.run({ messages })) if (event.type === 'text') process.stdout.write(event.text);
 * await engine.close();
 * @throws SparseVilaError as `load`
 */
export const openEngine: (model: string, options?: EngineOptions) => Promise<Engine> = withCodes(
  async (name: string, options?: EngineOptions) => {
    const given = checkOptions<EngineOptions>('openEngine', options, OPTIONS);
    const { kv, contextLength, sparsity, maxRunning, maxWaiting, ...load } = given;
    requestedMethod(sparsity);
    return engineOf(openCore(name, await loadByName(name, load as LoadOptions), given));
  },
);

function engineOf(core: Core): Engine {
  const { name } = core.model;
  const ending = new Set<AbortController>();
  let closed: Promise<void> | undefined;
  const gone = (): SparseVilaError => closedError(name);
  const run: Engine['run'] = (request, { signal } = {}) => {
    const aborter = new AbortController();
    const abort = (): void => aborter.abort(signal?.reason);
    const stream = eventStream<EngineEvent>(() => aborter.abort(new Error('The reader left.')));
    const answer = async (): Promise<void> => {
      if (closed !== undefined) throw gone();
      signal?.throwIfAborted();
      signal?.addEventListener('abort', abort, { once: true });
      ending.add(aborter);
      try {
        await core.answer(request, aborter.signal, stream.push);
      } finally {
        ending.delete(aborter);
        signal?.removeEventListener('abort', abort);
      }
    };
    answer().then(stream.end, stream.fail);
    return stream.events;
  };
  const close: Engine['close'] = ({ drain = false } = {}) => {
    closed ??= core.close();
    if (!drain) for (const aborter of ending) aborter.abort(gone());
    return closed;
  };
  return {
    model: core.model,
    run,
    count: async (request, { signal } = {}) => {
      if (closed !== undefined) throw gone();
      return core.count(request, signal ?? new AbortController().signal);
    },
    stats: core.stats,
    close,
    [Symbol.asyncDispose]: () => close(),
  };
}
