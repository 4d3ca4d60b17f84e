// Opens an engine: a model that answers many requests.

import { coded, SparseVilaError } from '../errors';
import { loadByName } from '../models/by_name';
import type { LoadOptions, VisionLanguageModel } from '../models/model';
import { ANYTHING, BOOLEAN, type Checks, COUNT, checkOptions, integer, NATURAL, oneOf, withCodes } from '../options';
import { answerRequest } from './core';
import { countTokens } from './count';
import { checkRequest, requestedMethod } from './request';
import { eventStream } from './stream';
import type { Engine, EngineEvent, EngineModel, EngineOptions, EngineRequest, EngineStats } from './types';

const DEFAULT_CONTEXT = 32768;

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
  async (model: string, options?: EngineOptions) => {
    const given = checkOptions<EngineOptions>('openEngine', options, OPTIONS);
    const { kv, contextLength, sparsity, maxRunning, maxWaiting, ...load } = given;
    requestedMethod(sparsity);
    return engineOf(model, await loadByName(model, load as LoadOptions), given);
  },
);

interface Counters {
  running: number;
  waiting: number;
  total: { -readonly [K in keyof EngineStats['total']]: number };
}

function engineOf(name: string, model: VisionLanguageModel, options: EngineOptions): Engine {
  const { kv = 'bf16', maxRunning = 16, maxWaiting = 64, sparsity } = options;
  const { maxPositions, vocabSize } = model.decoder.config;
  const contextLength = Math.min(options.contextLength ?? DEFAULT_CONTEXT, maxPositions);
  const facts: EngineModel = {
    ...{ name, path: model.path, family: model.family, contextLength, vocabSize },
    ...{ maxNewTokens: model.maxNewTokens, videos: model.plan.videos },
  };
  const total = {
    requests: 0,
    answered: 0,
    failed: 0,
    aborted: 0,
    promptTokens: 0,
    cachedTokens: 0,
    generatedTokens: 0,
  };
  const counters: Counters = { running: 0, waiting: 0, total };
  const queue: (() => void)[] = [];
  const ended = new AbortController();
  const idle: (() => void)[] = [];
  let closed: Promise<void> | undefined;
  const count = (event: EngineEvent): void => {
    if (event.type !== 'end') return;
    total.promptTokens += event.usage.prompt;
    total.cachedTokens += event.usage.cached;
    total.generatedTokens += event.usage.generated;
  };
  const next = (): void => {
    while (counters.running < maxRunning && queue.length > 0) {
      counters.waiting--;
      counters.running++;
      queue.shift()?.();
    }
    if (counters.running === 0) for (const wake of idle.splice(0)) wake();
  };
  const turn = (signal: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      counters.waiting++;
      const leave = (): void => {
        counters.waiting--;
        queue.splice(queue.indexOf(begin), 1);
        reject(signal.reason);
      };
      const begin = (): void => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      signal.addEventListener('abort', leave, { once: true });
      queue.push(begin);
      next();
    });
  const run: Engine['run'] = (request, given = {}) => {
    const left = new AbortController();
    const stream = eventStream<EngineEvent>(() => left.abort(new Error('The reader left.')));
    const signals = [left.signal, ended.signal, ...(given.signal === undefined ? [] : [given.signal])];
    const signal = AbortSignal.any(signals);
    const answer = async (): Promise<void> => {
      if (closed !== undefined) throw gone(name);
      signal.throwIfAborted();
      const checked = checkRequest(model, request, sparsity);
      if (counters.running >= maxRunning && counters.waiting >= maxWaiting) throw full(counters);
      total.requests++;
      const since = performance.now();
      await turn(signal);
      try {
        const settings = { kv, contextLength, queued: performance.now() - since };
        for await (const event of answerRequest(model, checked, settings, signal)) {
          count(event);
          stream.push(event);
        }
        total.answered++;
      } catch (error) {
        if (signal.aborted) total.aborted++;
        else total.failed++;
        throw error;
      } finally {
        counters.running--;
        next();
      }
    };
    answer().then(stream.end, (error: unknown) =>
      stream.fail(ended.signal.aborted ? gone(name) : coded(error, signal)),
    );
    return stream.events;
  };
  const close: Engine['close'] = ({ drain = false } = {}) => {
    if (!drain) ended.abort(gone(name));
    closed ??= (async () => {
      if (counters.running + counters.waiting > 0) await new Promise<void>((resolve) => idle.push(resolve));
      model.dispose();
    })();
    return closed;
  };
  return {
    model: facts,
    run,
    count: withCodes(
      async (request: Pick<EngineRequest, 'messages' | 'sparsity'>, given: { signal?: AbortSignal } = {}) => {
        if (closed !== undefined) throw gone(name);
        const checked = checkRequest(model, request, sparsity);
        return countTokens(model, checked, given.signal);
      },
    ),
    stats: () => ({
      ...{ running: counters.running, waiting: counters.waiting, total: { ...total } },
      ...{ kvBytes: 0, cachedBytes: 0, cachedPrefixes: 0, cachedPictures: 0 },
    }),
    close,
    [Symbol.asyncDispose]: () => close(),
  };
}

function gone(name: string): SparseVilaError {
  return new SparseVilaError('ERR_DISPOSED', `The engine of ${name} has been closed. Open it again.`);
}

function full({ running, waiting }: Counters): SparseVilaError {
  return new SparseVilaError(
    'ERR_ENGINE_FULL',
    `Expected room for another request, but ${running} are answered and ${waiting} wait. Try again later, or raise maxRunning or maxWaiting.`,
  );
}
