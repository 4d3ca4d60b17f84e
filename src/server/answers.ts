// Answers of the engine in the terms of OpenAI's API: usage, finish reasons, log-probabilities, and this server's own measurements.

import type { TurnCells } from '../engine/cells';
import type { Engine, EngineEvent, EngineRequest } from '../engine/types';
import { SparseVilaError } from '../errors';
import type { RankedToken, TokenLogprob } from '../text/logprobs';
import type { ServerMetrics } from './metrics';

export type EndEvent = Extract<EngineEvent, { type: 'end' }>;

/** An answer that was read to its end. */
export interface WholeAnswer {
  readonly text: string;
  readonly logprobs: readonly TokenLogprob[];
  readonly end: EndEvent;
}

export interface Answering {
  readonly engine: Engine;
  readonly metrics: ServerMetrics;
  readonly signal: AbortSignal;
}

/** Runs a request; `onText` receives each piece of the answer. @throws errors of the engine; `signal.reason` */
export async function answer(
  { engine, metrics, signal }: Answering,
  request: EngineRequest,
  onText: (text: string, logprobs: readonly TokenLogprob[]) => void | Promise<void> = () => undefined,
): Promise<WholeAnswer> {
  let text = '';
  const logprobs: TokenLogprob[] = [];
  for await (const event of engine.run(request, { signal })) {
    if (event.type === 'begin') continue;
    if (event.type === 'end') {
      metrics.answered(event);
      return { text, logprobs, end: event };
    }
    text += event.text;
    for (const one of event.logprobs ?? []) logprobs.push(one);
    await onText(event.text, event.logprobs ?? []);
  }
  signal.throwIfAborted();
  throw new SparseVilaError('ERR_INTERNAL', 'Expected an end of the answer, received none.');
}

export function finishReason({ finish }: EndEvent): 'stop' | 'length' {
  return finish === 'length' ? 'length' : 'stop';
}

/** Token counts of a request over its answers, which share the prompt. */
export interface TokenUsage {
  readonly prompt: number;
  readonly cached: number;
  readonly generated: number;
}

export function usageOf(ends: readonly EndEvent[]): TokenUsage {
  const prompt = ends[0]?.usage.prompt ?? 0;
  const cached = Math.min(...ends.map(({ usage }) => usage.cached));
  return { prompt, cached, generated: ends.reduce((sum, { usage }) => sum + usage.generated, 0) };
}

/** `usage` of a chat completion. */
export function chatUsage({ prompt, cached, generated }: TokenUsage) {
  return {
    prompt_tokens: prompt,
    completion_tokens: generated,
    total_tokens: prompt + generated,
    prompt_tokens_details: { cached_tokens: cached, audio_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 },
  };
}

/** What was measured of an answer: tokens of each stage, and milliseconds. */
export interface Measurements {
  readonly tokens: Readonly<Record<string, number>>;
  readonly ms: Readonly<Record<string, number>>;
  readonly cells?: TurnCells;
}

/** The extension `sparsevila` of an answer: visual tokens of each stage, milliseconds, and the cells if they were wanted. */
export function measurements({ usage, ms, cells }: EndEvent): Measurements {
  const { prompt, cached, generated, visualSeen, visualKept, visualRetrieved, drafted, accepted } = usage;
  return {
    tokens: {
      ...{ prompt, cached, generated, visual_seen: visualSeen, visual_kept: visualKept },
      ...{ visual_retrieved: visualRetrieved, drafted, accepted },
    },
    ms: Object.fromEntries(Object.entries(ms).map(([stage, time]) => [stage, Math.round(time * 1000) / 1000])),
    ...(cells !== undefined && { cells }),
  };
}

/** A token in the form of `logprobs.content`. */
export function chatLogprob({ top, ...token }: TokenLogprob) {
  const shown = ({ text, logprob, bytes }: RankedToken) => ({
    token: text,
    // JSON has no -Infinity; this is OpenAI's own value for a token that is not possible.
    logprob: Math.max(logprob, -9999),
    bytes: [...bytes],
  });
  return { ...shown(token), top_logprobs: top.map(shown) };
}
