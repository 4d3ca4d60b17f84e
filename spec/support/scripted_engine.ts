// An engine that answers by a script, at once or slowly, for specs of what surrounds an engine: requests, streams, limits, disconnections.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine, EngineEvent, EngineRequest } from '../../src/engine/types';
import type { TokenLogprob } from '../../src/text/logprobs';

export interface Script {
  /** The pieces of the answer. */
  readonly pieces?: (request: EngineRequest) => readonly string[];
  /** Milliseconds before the first piece, and before each. */
  readonly prefillMs?: number;
  readonly pieceMs?: number;
  readonly finish?: 'stop' | 'length' | 'stopString';
  /** Thrown instead of an answer, or after this many pieces. */
  readonly error?: { readonly thrown: Error; readonly after: number };
}

export interface ScriptedEngine extends Engine {
  /** All requests so far. */
  readonly asked: EngineRequest[];
  readonly state: { running: number; aborted: number; script: Script };
  /** Aborts `ended`, as the end of a thread does. */
  readonly fail: () => void;
}

export function scriptedEngine(script: Script = {}): ScriptedEngine {
  const asked: EngineRequest[] = [];
  const state = { running: 0, aborted: 0, script };
  async function* run(request: EngineRequest, signal: AbortSignal | undefined): AsyncGenerator<EngineEvent> {
    const { pieces = () => ['A', ' cat', '.'], prefillMs = 0, pieceMs = 0, finish = 'stop', error } = state.script;
    const wait = (ms: number): Promise<void> =>
      ms === 0 ? Promise.resolve() : sleep(ms, undefined, signal && { signal });
    const media = request.messages.flatMap(({ content }) =>
      typeof content === 'string' ? [] : content.filter((part) => typeof part !== 'string'),
    );
    const tokens = { prompt: 10, cached: 4, visualSeen: 100 * media.length, visualKept: 40 * media.length };
    let written = 0;
    state.running++;
    try {
      signal?.throwIfAborted();
      await wait(prefillMs);
      if (error?.after === 0) throw error.thrown;
      yield { type: 'begin', tokens };
      for (const text of pieces(request)) {
        await wait(pieceMs);
        signal?.throwIfAborted();
        if (error !== undefined && written === error.after) throw error.thrown;
        written++;
        yield {
          type: 'text',
          text,
          ...(request.logprobs !== undefined && { logprobs: [logprobOf(text, request.logprobs)] }),
        };
      }
      const ms = { image: 1, tower: 2, project: 3, prefill: 4, retrieve: 5, queue: 1, first: 16, total: 20 };
      const visual = { ...tokens, visualRetrieved: 10 * media.length };
      const drafts = request.sparsity?.verify === 'dense' ? { drafted: 6, accepted: 5 } : { drafted: 0, accepted: 0 };
      yield { type: 'end', finish, usage: { ...visual, generated: written, ...drafts }, ms };
    } catch (thrown) {
      if (!signal?.aborted) throw thrown;
      state.aborted++;
      throw signal.reason;
    } finally {
      state.running--;
    }
  }
  const failure = new AbortController();
  return {
    asked,
    state,
    ended: failure.signal,
    fail: () => failure.abort(),
    model: {
      ...{ name: 'scripted', path: '/nowhere', family: 'scripted', contextLength: 1000, maxNewTokens: 64 },
      ...{ vocabSize: 100, videos: true },
    },
    run(request, { signal } = {}) {
      asked.push(request);
      return run(request, signal);
    },
    count: async () => ({ text: 10, visualSeen: 100, visualKept: 40 }),
    stats: () => ({
      ...{ running: state.running, waiting: 0, kvBytes: 0, cachedBytes: 0, cachedPrefixes: 0, cachedPictures: 0 },
      total: {
        ...{ requests: 0, answered: 0, failed: 0, aborted: 0, promptTokens: 0, cachedTokens: 0, generatedTokens: 0 },
      },
    }),
    close: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
}

function logprobOf(text: string, alternatives: number): TokenLogprob {
  const ranked = (id: number, shown: string, logprob: number) => ({
    id,
    text: shown,
    bytes: [...Buffer.from(shown)],
    logprob,
  });
  const top = Array.from({ length: alternatives }, (_, i) =>
    ranked(i, `t${i}`, i === 0 ? -0.5 : Number.NEGATIVE_INFINITY),
  );
  return { ...ranked(1, text, -0.5), top };
}
