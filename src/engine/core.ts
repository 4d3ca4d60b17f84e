// Answers requests with a loaded model, in the thread that calls it.

import { SparseVilaError } from '../errors';
import { tokensOf } from '../models/media';
import type { VisionLanguageModel } from '../models/model';
import { pacer } from '../models/pacer';
import { startConversation } from '../session/conversation';
import { openHistory } from '../session/history';
import { runTurn, type TurnStats } from '../session/turn';
import type { CheckedRequest } from './request';
import type { EngineEvent, PromptTokens } from './types';

/** Answers one request. @throws SparseVilaError as `Session.ask`; `signal.reason` */
export async function* answerRequest(
  model: VisionLanguageModel,
  { history, question, method, ask }: CheckedRequest,
  { kv, contextLength, queued }: { kv: 'bf16' | 'f32'; contextLength: number; queued: number },
  signal: AbortSignal | undefined,
): AsyncGenerator<EngineEvent> {
  const conversation = startConversation(model.decoder.cache(kv, contextLength));
  const begin = performance.now();
  let first = 0;
  let tokens: PromptTokens | undefined;
  let stats: TurnStats | undefined;
  const times = { image: 0, tower: 0, project: 0, prefill: 0, retrieve: 0 };
  const context = { model, method, conversation, times, signal, pace: pacer(signal) };
  const onPrefilled = ({ prompt, cached }: { prompt: number; cached: number }): void => {
    const visualSeen = conversation.media.reduce((sum, { prepared }) => sum + tokensOf(prepared.layout), 0);
    tokens = { prompt, cached, visualSeen, visualKept: conversation.places.length };
  };
  try {
    if (history.length > 0) await openHistory(context, undefined, history);
    const options = { ...ask, signal, history: 'keep' as const, onPrefilled };
    const pieces = runTurn(context, undefined, question, options as Parameters<typeof runTurn>[3], (done) => {
      stats = done;
    });
    for await (const text of pieces) {
      if (first === 0) {
        first = performance.now() - begin + queued;
        yield { type: 'begin', tokens: tokens as PromptTokens };
      }
      yield { type: 'text', text };
    }
    if (first === 0) yield { type: 'begin', tokens: tokens as PromptTokens };
    if (stats === undefined) throw new SparseVilaError('ERR_INTERNAL', 'A turn ended without statistics.');
    const { generated, visualRetrieved } = stats.tokens;
    const { perToken: _, ...stages } = stats.ms;
    const total = performance.now() - begin + queued;
    const usage = { ...(tokens as PromptTokens), generated, visualRetrieved };
    yield { type: 'end', finish: stats.finish, usage, ms: { ...stages, queue: queued, first: first || total, total } };
  } finally {
    conversation.cache.dispose();
  }
}
