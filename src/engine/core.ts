// The engine in the thread of its model: admits requests, answers them side by side, and counts.

import { coded } from '../errors';
import type { VisionLanguageModel } from '../models/model';
import { answerRequest } from './answer';
import { countTokens } from './count';
import { withPictures } from './pictures';
import { prefixes } from './prefixes';
import { queue } from './queue';
import { checkRequest } from './request';
import { freeMemory, room } from './room';
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

/** Share of the free memory that is used to remember, if the caller does not say how much. */
const REMEMBERED = 1 / 8;
/** Share of the remembered bytes that pictures may have; conversations have the rest. */
const PICTURES = 1 / 4;
/** Bytes of memory that are left to the rest of the process, such as the activations of a prefill. */
const RESERVE = 2 ** 28;

/** @param free bytes that the machine has left */
export function openCore(
  name: string,
  loaded: VisionLanguageModel,
  options: EngineOptions,
  free: () => number = freeMemory,
): Core {
  const { kv = 'bf16', maxRunning = 16, maxWaiting = 64, sparsity, memoryBytes = free() * REMEMBERED } = options;
  const pictures = withPictures(loaded, memoryBytes * PICTURES);
  const { model } = pictures;
  const memory = prefixes(model, memoryBytes * (1 - PICTURES));
  const memoryRoom = room({ free: () => free() - RESERVE, evict: () => memory.evict() || pictures.evict() });
  const caches = new Set<{ readonly bytes: number }>();
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
      const context = { seat: seats.seat(signal), kv, contextLength, signal, since, memory, room: memoryRoom, caches };
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
      kvBytes: [...caches].reduce((sum, { bytes }) => sum + bytes, 0),
      cachedBytes: memory.bytes + pictures.bytes,
      ...{ cachedPrefixes: memory.size, cachedPictures: pictures.size },
    }),
    async close() {
      await places.idle();
      memory.clear();
      model.dispose();
    },
  };
}
