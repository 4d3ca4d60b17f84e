// The answer to one request: a turn of a conversation of its own, as events.

import { SparseVilaError } from '../errors';
import { tokensOf } from '../models/media';
import type { KvType } from '../ops/kv_cache';
import { startConversation } from '../session/conversation';
import { openHistory } from '../session/history';
import { runTurn, type TurnStats } from '../session/turn';
import type { CheckedRequest } from './request';
import type { Seat } from './scheduler';
import type { EngineEvent, PromptTokens } from './types';

export interface AnswerContext {
  readonly seat: Seat;
  readonly kv: KvType;
  readonly contextLength: number;
  readonly signal: AbortSignal;
  /** When the request came, on the clock of `performance.now()`. */
  readonly since: number;
}

/** @throws SparseVilaError as `Session.ask`; `signal.reason` */
export async function* answerRequest(
  { history, question, method, ask }: CheckedRequest,
  { seat, kv, contextLength, signal, since }: AnswerContext,
): AsyncGenerator<EngineEvent> {
  const { model, pace } = seat;
  const conversation = startConversation(model.decoder.cache(kv, contextLength));
  const times = { image: 0, tower: 0, project: 0, prefill: 0, retrieve: 0 };
  const context = { model, method, conversation, times, signal, pace };
  const queue = performance.now() - since;
  let tokens: PromptTokens = { prompt: 0, cached: 0, visualSeen: 0, visualKept: 0 };
  let first: number | undefined;
  let stats: TurnStats | undefined;
  const onPrefilled = (rows: Pick<PromptTokens, 'prompt' | 'cached'>): void => {
    const visualSeen = conversation.media.reduce((sum, { prepared }) => sum + tokensOf(prepared.layout), 0);
    tokens = { ...rows, visualSeen, visualKept: conversation.places.length };
    seat.decode();
  };
  try {
    if (history.length > 0) await openHistory(context, undefined, history);
    const options = { ...ask, history: 'keep', onPrefilled } as const;
    const pieces = runTurn(context, undefined, question, options, (done) => {
      stats = done;
    });
    for await (const { text, tokens: logprobs } of pieces) {
      if (first === undefined) yield { type: 'begin', tokens };
      first ??= performance.now() - since;
      yield { type: 'text', text, ...(ask.logprobs !== undefined && { logprobs }) };
    }
    if (first === undefined) yield { type: 'begin', tokens };
    yield { type: 'end', ...summary(stats, tokens, { queue, first, total: performance.now() - since }) };
  } finally {
    seat.leave();
    conversation.cache.dispose();
  }
}

function summary(
  stats: TurnStats | undefined,
  tokens: PromptTokens,
  { queue, total, first = total }: { queue: number; total: number; first: number | undefined },
): Omit<Extract<EngineEvent, { type: 'end' }>, 'type'> {
  if (stats === undefined) throw new SparseVilaError('ERR_INTERNAL', 'A turn ended without statistics.');
  const { generated, visualRetrieved } = stats.tokens;
  const { perToken: _, ...stages } = stats.ms;
  const usage = { ...tokens, generated, visualRetrieved };
  return { finish: stats.finish, usage, ms: { ...stages, queue, first, total } };
}
