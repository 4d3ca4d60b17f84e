// The engine in the thread of its model: admits requests, answers them side by side, and counts.

import { coded } from '../errors';
import type { VisionLanguageModel } from '../models/model';
import { answerRequest } from './answer';
import { countTokens } from './count';
import { queue } from './queue';
import { checkRequest } from './request';
import { scheduler } from './scheduler';
import type {
  CountRequest,
  EngineEvent,
  EngineModel,
  EngineOptions,
  EngineRequest,
  EngineStats,
  TokenCounts,
} from './types';

export interface Core {
  readonly model: EngineModel;
  /** Answers a request; the last event is its end. Never waits for `onEvent`. @throws SparseVilaError as `Engine.run`; `signal.reason` */
  answer(request: EngineRequest, signal: AbortSignal, onEvent: (event: EngineEvent) => void): Promise<void>;
  count(request: CountRequest, signal: AbortSignal): Promise<TokenCounts>;
  stats(): EngineStats;
  /** Waits until all requests have ended, and frees the model. */
  close(): Promise<void>;
}

const DEFAULT_CONTEXT = 32768;

export function openCore(name: string, model: VisionLanguageModel, options: EngineOptions): Core {
  const { kv = 'bf16', maxRunning = 16, maxWaiting = 64, sparsity } = options;
  const { maxPositions, vocabSize } = model.decoder.config;
  const contextLength = Math.min(options.contextLength ?? DEFAULT_CONTEXT, maxPositions);
  const seats = scheduler(model);
  const places = queue({ maxRunning, maxWaiting });
  const totals = {
    requests: 0,
    answered: 0,
    failed: 0,
    aborted: 0,
    promptTokens: 0,
    cachedTokens: 0,
    generatedTokens: 0,
  };

  const answerIn = async (
    request: EngineRequest,
    signal: AbortSignal,
    onEvent: (event: EngineEvent) => void,
  ): Promise<void> => {
    const checked = checkRequest(model, request, sparsity);
    const since = performance.now();
    const release = await places.enter(signal);
    try {
      const context = { seat: seats.seat(signal), kv, contextLength, signal, since };
      for await (const event of answerRequest(checked, context)) {
        if (event.type === 'end') {
          totals.promptTokens += event.usage.prompt;
          totals.cachedTokens += event.usage.cached;
          totals.generatedTokens += event.usage.generated;
        }
        onEvent(event);
      }
    } finally {
      release();
    }
  };

  return {
    model: {
      ...{ name, path: model.path, family: model.family, contextLength, vocabSize },
      ...{ maxNewTokens: model.maxNewTokens, videos: model.plan.videos },
    },
    async answer(request, signal, onEvent) {
      totals.requests++;
      try {
        await answerIn(request, signal, onEvent);
        totals.answered++;
      } catch (error) {
        if (signal.aborted) totals.aborted++;
        else totals.failed++;
        throw coded(error, signal);
      }
    },
    async count(request, signal) {
      try {
        return await countTokens(model, checkRequest(model, request, sparsity), signal);
      } catch (error) {
        throw coded(error, signal);
      }
    },
    stats: () => ({
      ...{ running: places.running, waiting: places.waiting, total: { ...totals } },
      ...{ kvBytes: 0, cachedBytes: 0, cachedPrefixes: 0, cachedPictures: 0 },
    }),
    async close() {
      await places.idle();
      model.dispose();
    },
  };
}
