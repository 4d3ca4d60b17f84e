// The answer to one request: a turn of a conversation of its own, as events.

import { SparseVilaError } from '../errors';
import { allStateBytes, rowBytes } from '../models/kv_cache';
import { type Grid, tokensOf } from '../models/media';
import type { KvType } from '../ops/kv_cache';
import { type Conversation, lengthOf, startConversation } from '../session/conversation';
import { rowsAround } from '../session/decoder_rows';
import { openHistory } from '../session/history';
import type { TurnPrompt } from '../session/prompt';
import { runTurn } from '../session/turn';
import type { TurnStats } from '../session/turn_stats';
import type { SparsityMethod } from '../sparsity/method';
import { turnCells } from './cells';
import type { Prefixes } from './prefixes';
import type { CheckedRequest } from './request';
import type { Room } from './room';
import type { Seat } from './scheduler';
import type { EngineEvent, PromptTokens } from './types';

export interface AnswerContext {
  readonly seat: Seat;
  readonly kv: KvType;
  readonly contextLength: number;
  readonly signal: AbortSignal;
  readonly memory: Prefixes;
  readonly room: Room;
  /** The caches of running requests. */
  readonly caches: Set<{ readonly bytes: number }>;
  /** When the request came, on the clock of `performance.now()`. */
  readonly since: number;
}

/** Of the layers that keep them: the states, and copies of them before a turn and at its question. */
const STATES = 3;

/** @throws SparseVilaError as `Session.ask`; `signal.reason` */
export async function* answerRequest(
  request: CheckedRequest,
  { seat, kv, contextLength, signal, memory, room, caches, since }: AnswerContext,
): AsyncGenerator<EngineEvent> {
  const { history, question, method, methodKey, ask } = request;
  const { model, pace } = seat;
  const conversation = startConversation(model.decoder.cache(kv, contextLength));
  const cache = {
    get bytes() {
      return conversation.cache.bytes;
    },
  };
  caches.add(cache);
  let leaveRoom = (): void => undefined;
  const admit = async (prompt: TurnPrompt): Promise<void> => {
    const { config } = model.decoder;
    const each = rowBytes(config, kv);
    const states = STATES * allStateBytes(config);
    const rows = Math.min(contextLength, rowsOf(seat.model, request, conversation, prompt));
    const written = (): number => (lengthOf(conversation) === 0 ? 0 : lengthOf(conversation) * each + states);
    leaveRoom = await room.admit(rows * each + states, written, signal);
  };
  const remembered = memory.turn({ conversation, method: asRemembered(request), methodKey, kv, signal, admit });
  const times = { image: 0, tower: 0, project: 0, prefill: 0, retrieve: 0 };
  const context = { model, method, conversation, times, signal, pace, memory: remembered };
  const queue = performance.now() - since;
  let tokens: PromptTokens = { prompt: 0, cached: 0, visualSeen: 0, visualKept: 0 };
  let first: number | undefined;
  let stats: TurnStats | undefined;
  const onPrefilled = (rows: Pick<PromptTokens, 'prompt' | 'cached'>): void => {
    const visualSeen = conversation.media.reduce((sum, { prepared }) => sum + tokensOf(prepared.layout), 0);
    tokens = { ...rows, visualSeen, visualKept: conversation.places.length };
    remembered.prefilled();
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
    const cells = request.cells ? { cells: turnCells(conversation, stats?.retrieved) } : {};
    yield { type: 'end', ...summary(stats, tokens, { queue, first, total: performance.now() - since }), ...cells };
  } finally {
    seat.leave();
    caches.delete(cache);
    remembered.end();
    leaveRoom();
  }
}

/** The method by which it is known which rows can be remembered: a verified answer has attended all rows. */
function asRemembered({ method, ask: { verify } }: CheckedRequest): SparsityMethod {
  if (verify === undefined || method.retrieve?.permanent === true) return method;
  const { retrieve: _, ...rest } = method;
  return rest;
}

/** How much larger than its rows a cache may become, since it grows in steps. */
const SPARE = 1.25;

/** An upper bound of the rows of a request, its answer included. */
function rowsOf(
  model: Seat['model'],
  { ask, keeps }: CheckedRequest,
  { media }: Conversation,
  { opening, question }: TurnPrompt,
): number {
  const tokens = new Map<string, { readonly grid: Grid; readonly given: number }>();
  let rows = question.length;
  for (const part of opening) {
    if (!('medium' in part)) {
      rows += part.length;
      continue;
    }
    const { grids, runs } = media[part.medium]?.prepared.layout ?? { grids: [], runs: [] };
    const run = runs[part.run];
    const grid = grids[run?.grid ?? 0];
    if (run === undefined || grid === undefined) continue;
    const key = `${part.medium} ${run.grid}`;
    const own = tokens.get(key) ?? { grid, given: 0 };
    tokens.set(key, { grid, given: own.given + run.to - run.from });
    rows += rowsAround(model, run);
  }
  // A method may keep all tokens of one frame and none of another.
  for (const { grid, given } of tokens.values()) rows += Math.min(given, keeps(grid));
  return Math.ceil((rows + (ask.maxTokens ?? model.maxNewTokens)) * SPARE);
}

function summary(
  stats: TurnStats | undefined,
  tokens: PromptTokens,
  { queue, total, first = total }: { queue: number; total: number; first: number | undefined },
): Omit<Extract<EngineEvent, { type: 'end' }>, 'type'> {
  if (stats === undefined) throw new SparseVilaError('ERR_INTERNAL', 'A turn ended without statistics.');
  const { generated, visualRetrieved, drafted, accepted } = stats.tokens;
  const { perToken: _, ...stages } = stats.ms;
  const usage = { ...tokens, generated, visualRetrieved, drafted, accepted };
  return { finish: stats.finish, usage, ms: { ...stages, queue, first, total } };
}
