// Counts the tokens of a request from the sizes of its pictures, without the vision tower.

import { MARKER, tokensOf } from '../models/media';
import type { VisionLanguageModel } from '../models/model';
import { pacer } from '../models/pacer';
import { checkOptions, OBJECT, SIGNAL } from '../options';
import { startConversation } from '../session/conversation';
import { rowsAround } from '../session/decoder_rows';
import { type ChatMessage, openHistory } from '../session/history';
import { prepareMedia } from '../session/media';
import { turnPrompt } from '../session/prompt';
import { turnsWith } from '../session/turn';
import { type CheckedRequest, checkRequest } from './request';
import type { SparsityRequest, TokenCounts } from './types';

/** @throws SparseVilaError as `Session.ask` */
export async function countTokens(
  model: VisionLanguageModel,
  { history, question, method, keeps }: CheckedRequest,
  signal: AbortSignal | undefined,
): Promise<TokenCounts> {
  const conversation = startConversation(model.decoder.cache('bf16'));
  const times = { image: 0, tower: 0, project: 0, prefill: 0, retrieve: 0 };
  const context = { model, method, conversation, times, signal, pace: pacer(signal) };
  if (history.length > 0) await openHistory(context, undefined, history);
  const first = conversation.media.length;
  const own = await prepareMedia(context, question.media);
  const media = [...conversation.media.map(({ prepared }) => prepared), ...own];
  const layoutText = (medium: number): string => media[medium]?.layout.text ?? MARKER;
  const turns = turnsWith(conversation.script, undefined, question, first);
  const prompt = turnPrompt({ model, conversation, layoutText }, turns);
  const ids = prompt.opening.reduce((sum, part) => sum + ('medium' in part ? 0 : part.length), prompt.question.length);
  const runs = media.flatMap(({ layout }) => layout.runs);
  const grids = media.flatMap(({ layout }) => layout.grids);
  return {
    text: runs.reduce((sum, run) => sum + rowsAround(model, run), ids),
    visualSeen: media.reduce((sum, { layout }) => sum + tokensOf(layout), 0),
    visualKept: grids.reduce((sum, grid) => sum + keeps(grid), 0),
  };
}

export interface CountOptions {
  /** Default: dense. */
  readonly sparsity?: SparsityRequest;
  readonly signal?: AbortSignal;
}

/** Counts the tokens of a first question. @throws SparseVilaError as `Session.ask` */
export function countContent(
  model: VisionLanguageModel,
  content: ChatMessage['content'],
  options?: CountOptions,
): Promise<TokenCounts> {
  model.lifetime?.check();
  const { signal, ...given } = checkOptions<CountOptions>('countTokens', options, { sparsity: OBJECT, signal: SIGNAL });
  signal?.throwIfAborted();
  return countTokens(
    model,
    checkRequest(model, { messages: [{ role: 'user', content }], ...given }, undefined),
    signal,
  );
}
