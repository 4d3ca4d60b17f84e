// A conversation with a model: images and questions in, streamed answers out. The only place that knows models and sparsity
// both.

import { SparseVilaError } from '../errors';
import { breather } from '../models/breath';
import type { VisionLanguageModel } from '../models/model';
import { dense } from '../sparsity/dense';
import type { SparsityMethod } from '../sparsity/method';
import { createSampler } from '../text/sampling';
import { turnPieces } from '../text/template';
import { lengthOf, type Mark, mark, rewind, startConversation } from './conversation';
import { type AskOptions, checkAskOptions, checkSessionOptions, type SessionOptions, samplingOf } from './options';
import { turnPrompt } from './prompt';
import { runTurn, type TurnStats } from './turn';

export type { AskOptions, SessionOptions } from './options';
export type { TurnStats } from './turn';

/** A streamed answer. Nothing runs before it is iterated; leaving the loop early keeps the text so far in the conversation.
 *  Read it once: every iteration, and every `text()`, asks the question again. */
export interface Answer extends AsyncIterable<string> {
  /** The whole text. */
  text(): Promise<string>;
  /** Once the answer is complete. */
  readonly stats: TurnStats | undefined;
}

export interface Session {
  readonly model: VisionLanguageModel;
  readonly method: SparsityMethod;
  /** Rows in the cache; where layers differ, of that which has most. */
  readonly length: number;
  /**
   * Asks. Bad arguments throw at once; the answer's iteration throws `ERR_BUSY` while another answer runs,
   * `ERR_CONTEXT_OVERFLOW`, image errors, `signal.reason`, and leaves the conversation as it was.
   */
  ask(question: string, options?: AskOptions): Answer;
  /** A point to come back to with `rewind`. */
  mark(): Mark;
  /** Forgets everything after a mark. */
  rewind(to: Mark): void;
  /** Frees the KV cache. */
  dispose(): void;
  [Symbol.dispose](): void;
}

const DEFAULT_CONTEXT = 32768;

/** Opens a conversation. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function createSession(model: VisionLanguageModel, options: SessionOptions = {}): Session {
  const { maxPositions } = model.decoder.config;
  checkSessionOptions(options, maxPositions);
  const { method = dense(), kv = 'bf16', contextLength = Math.min(maxPositions, DEFAULT_CONTEXT), system } = options;
  const pieces = turnPieces(model.template, system === undefined ? {} : { system });
  const conversation = startConversation(model.decoder, contextLength, kv);
  let state: 'idle' | 'busy' | 'disposed' = 'idle';

  const idle = (): void => {
    if (state !== 'idle') throw notIdle(state);
  };
  async function* run(question: string, ask: AskOptions, done: (stats: TurnStats) => void): AsyncGenerator<string> {
    idle();
    state = 'busy';
    const times = { image: 0, tower: 0, project: 0, prefill: 0, retrieve: 0 };
    const { signal } = ask;
    try {
      const context = { model, method, conversation, times, signal, breathe: breather(signal) };
      const history = ask.history ?? options.history ?? 'keep';
      yield* runTurn(context, pieces, question, { ...ask, history }, done);
    } finally {
      state = 'idle';
    }
  }
  const dispose = (): void => {
    if (state === 'disposed') return;
    idle();
    state = 'disposed';
    for (const layer of conversation.cache) layer.dispose();
  };

  return {
    model,
    method,
    get length() {
      return lengthOf(conversation);
    },
    ask(question, ask = {}) {
      if (state === 'disposed') throw notIdle(state);
      checkAskOptions(ask);
      createSampler({ ...model.sampling, ...samplingOf(ask) });
      turnPrompt(model, pieces, conversation, question, ask.images?.length ?? 0);
      return answerOf((done) => run(question, ask, done));
    },
    mark() {
      idle();
      return mark(conversation);
    },
    rewind(to) {
      idle();
      rewind(conversation, to);
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
}

function notIdle(state: 'busy' | 'disposed'): SparseVilaError {
  return state === 'busy'
    ? new SparseVilaError(
        'ERR_BUSY',
        'Another answer of this session is still running. Finish its loop or abort it first, or open a second session.',
      )
    : new SparseVilaError(
        'ERR_DISPOSED',
        'This session has been disposed of. Open a new one with session() of the model.',
      );
}

function answerOf(run: (done: (stats: TurnStats) => void) => AsyncGenerator<string>): Answer {
  let stats: TurnStats | undefined;
  const iterate = (): AsyncGenerator<string> =>
    run((result) => {
      stats = result;
    });
  return {
    [Symbol.asyncIterator]: iterate,
    async text() {
      let whole = '';
      for await (const piece of iterate()) whole += piece;
      return whole;
    },
    get stats() {
      return stats;
    },
  };
}
