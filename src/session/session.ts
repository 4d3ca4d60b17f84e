// A conversation with a model: questions with media in, streamed answers out.

import { coded, SparseVilaError } from '../errors';
import { MARKER } from '../models/media';
import type { VisionLanguageModel } from '../models/model';
import { pacer } from '../models/pacer';
import { tieredCache } from '../models/tiered_cache';
import { checkSystem } from '../models/transcript';
import { ANYTHING, type Checks, checkOptions, checkValue, NAME, SIGNAL, signalOf } from '../options';
import type { SparsityMethod } from '../sparsity/method';
import { createSampler } from '../text/sampling';
import { type Answer, answerOf, readingOf } from './answer';
import {
  type Conversation,
  forkConversation,
  lengthOf,
  type Mark,
  mark,
  pointOf,
  rewind,
  startConversation,
} from './conversation';
import { whenDropped } from './dropped';
import type { Piece } from './generate';
import { type ChatMessage, checkMessages, openHistory } from './history';
import { isLong } from './long_text';
import {
  type AskOptions,
  checkAskOptions,
  checkSessionOptions,
  checkVerified,
  type Part,
  questionOf,
  type SessionOptions,
  samplingOf,
} from './options';
import { turnPrompt } from './prompt';
import { restoreConversation, saveConversation } from './saved';
import { type Question, runTurn, turnsWith } from './turn';
import type { TurnStats } from './turn_stats';

export type { Answer } from './answer';
export type { FinishReason, Piece } from './generate';
export type { ChatMessage } from './history';
export type { AskOptions, Part, SessionOptions } from './options';
export type { TurnStats } from './turn_stats';

export interface Session {
  readonly model: VisionLanguageModel;
  readonly method: SparsityMethod;
  /**
   * Number of rows in the cache; where layers differ, of the layer that has the most. A failed turn may leave fewer where the chat template
   * rewrites history: nothing that was said is lost, and the next question prefills them again.
   */
  readonly length: number;
  /**
   * Asks a question. Invalid arguments throw at once. Reading the answer throws `ERR_BUSY` while another answer runs, `ERR_DISPOSED`,
   * `ERR_CONTEXT_OVERFLOW`, image errors and `signal.reason`; the conversation is then as it was before.
   */
  ask(question: string | readonly Part[], options?: AskOptions): Answer;
  /**
   * Continues a conversation that was held elsewhere; it replaces the conversation of this session. Media are decoded now; the next
   * question prefills what the cache does not hold yet.
   * @param messages an optional system message first, then user and assistant alternate; the last message is an answer
   * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_QUESTION`, `ERR_BUSY`, `ERR_DISPOSED`, image errors; `signal.reason`. The conversation
   *   is then as it was before.
   */
  open(messages: readonly ChatMessage[], options?: { readonly signal?: AbortSignal }): Promise<void>;
  /**
   * A second session in the present state of this one, with the same method and options; the two are independent afterwards. The KV cache is
   * copied, and nothing is prefilled again. Marks stay with the session that made them.
   * @throws SparseVilaError `ERR_BUSY`, `ERR_DISPOSED`, `ERR_OUT_OF_MEMORY`
   */
  fork(): Session;
  /**
   * Writes the conversation with its pictures and its KV cache into a file, with which `restore` of the model continues it without a prefill. The
   * file gets its name when it is complete. It holds what was said and shown.
   * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for a model with layers that keep states (Qwen3.5), and with `kvBudget`; `ERR_OUTPUT_UNWRITABLE`, `ERR_DISK_FULL`,
   *   `ERR_BUSY`, `ERR_DISPOSED`; `signal.reason`
   */
  save(file: string, options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** Returns a mark of the present state, for `rewind`. @throws SparseVilaError `ERR_BUSY`, `ERR_DISPOSED` */
  mark(): Mark;
  /** Returns to the state of a mark. @throws SparseVilaError `ERR_MARK`, `ERR_BUSY`, `ERR_DISPOSED` */
  rewind(to: Mark): void;
  /** Frees the KV cache; a second call does nothing. @throws SparseVilaError `ERR_BUSY` while an answer runs */
  dispose(): void;
  [Symbol.dispose](): void;
}

const DEFAULT_CONTEXT = 32768;

export interface RestoreOptions extends Omit<SessionOptions, 'kv' | 'kvBudget'> {
  readonly signal?: AbortSignal;
}

// `checkSessionOptions` checks the others.
const RESTORE: Checks<RestoreOptions> = {
  ...{ method: ANYTHING, contextLength: ANYTHING, history: ANYTHING, system: ANYTHING },
  signal: SIGNAL,
};

/** Opens a conversation. @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_METHOD`, `ERR_OUT_OF_MEMORY`, `ERR_DISPOSED` (the model) */
export function createSession(model: VisionLanguageModel, options?: SessionOptions): Session {
  return codedCall(() => {
    model.lifetime?.check();
    const given = checkSessionOptions(options, model.decoder.config);
    const { kv = 'bf16', contextLength = Math.min(model.decoder.config.maxPositions, DEFAULT_CONTEXT), system } = given;
    if (system !== undefined) checkSystem(model, system);
    const cache = model.decoder.cache(kv, contextLength);
    const { kvBudget: budget } = given;
    const own = budget === undefined ? cache : tieredCache(cache, model.decoder.config, { type: kv, budget });
    return sessionOf(model, given, startConversation(own));
  });
}

/**
 * Opens a session with the conversation of a file. The method has to be the one that it was saved with; `contextLength` is as it was.
 * @throws SparseVilaError `ERR_SAVED_INVALID`, `ERR_SAVED_MODEL`, `ERR_FILE_…`, `ERR_CONTEXT_OVERFLOW`, as `createSession`; `signal.reason`
 */
export async function restoreSession(
  model: VisionLanguageModel,
  file: string,
  options: RestoreOptions | undefined,
): Promise<Session> {
  try {
    model.lifetime?.check();
    checkValue('restore', 'file', file, NAME);
    const { signal, ...others } = checkOptions<RestoreOptions>('restore', options, RESTORE);
    const given = checkSessionOptions(others, model.decoder.config);
    const { name: method } = given.method;
    const context = { model, method, contextLength: given.contextLength, pace: pacer(signal) };
    const { conversation, kv } = await restoreConversation(file, context);
    return sessionOf(model, { ...given, kv }, conversation);
  } catch (error) {
    throw coded(error, signalOf(options));
  }
}

type CheckedOptions = ReturnType<typeof checkSessionOptions>;

function sessionOf(model: VisionLanguageModel, options: CheckedOptions, conversation: Conversation): Session {
  const core = openCore(model, options, conversation);
  const session: Session = {
    model,
    method: core.method,
    get length() {
      return lengthOf(conversation);
    },
    ask: (question, ask) =>
      answerOf(
        codedCall(() => core.ask(question, ask)),
        session,
      ),
    open: (messages, given) => core.open(messages, given),
    save: (file, given) => core.save(file, given),
    fork: () => {
      core.checkIdle();
      return codedCall(() => sessionOf(model, options, forkConversation(conversation)));
    },
    mark: () => {
      core.checkIdle();
      return mark(conversation);
    },
    rewind: (to) => {
      core.checkIdle();
      rewind(conversation, pointOf(to));
    },
    dispose: core.dispose,
    [Symbol.dispose]: core.dispose,
  };
  whenDropped(session, core.release);
  return session;
}

/** The state and operations of a session. They hold no reference to the session object, so that a dropped session can be collected. */
function openCore(model: VisionLanguageModel, given: CheckedOptions, conversation: Conversation) {
  const { method, checked, system } = given;
  let state: 'idle' | 'busy' | 'disposed' = 'idle';
  let isDropped = false;

  /** Renders the prompt without the layouts of new media, only to find errors in the question early. */
  const draft = (question: Question): void => {
    const layoutText = (medium: number): string => conversation.media[medium]?.prepared.layout.text ?? MARKER;
    const turns = turnsWith(conversation.script, system, question, conversation.media.length);
    turnPrompt({ model, conversation, layoutText }, turns);
  };
  const checkIdle = (): void => {
    if (state !== 'idle') throw notIdle(state);
    model.lifetime?.check();
  };
  const free = (): void => {
    state = 'disposed';
    conversation.cache.dispose();
  };
  const contextOf = (signal: AbortSignal | undefined) => {
    const times = { image: 0, tower: 0, project: 0, prefill: 0, retrieve: 0 };
    return { model, method: checked, conversation, times, signal, pace: pacer(signal) };
  };
  /** Runs work during which the session is busy. */
  const exclusively = async (signal: AbortSignal | undefined, work: () => Promise<void>): Promise<void> => {
    const releaseModel = model.lifetime?.hold();
    state = 'busy';
    try {
      await work();
    } catch (error) {
      throw coded(error, signal);
    } finally {
      state = 'idle';
      releaseModel?.();
      if (isDropped) free();
    }
  };
  async function* run(
    question: Question,
    ask: AskOptions,
    done: (stats: TurnStats) => void,
    releaseModel: (() => void) | undefined,
  ): AsyncGenerator<Piece> {
    const { signal } = ask;
    try {
      const context = contextOf(signal);
      const history = ask.history ?? given.history ?? 'keep';
      yield* runTurn(context, system, question, { ...ask, history }, done);
    } catch (error) {
      throw coded(error, signal);
    } finally {
      state = 'idle';
      releaseModel?.();
      if (isDropped) free();
    }
  }
  return {
    method,
    checkIdle,
    ask(words: unknown, options: AskOptions | undefined) {
      if (state === 'disposed') throw notIdle(state);
      model.lifetime?.check();
      const ask = checkAskOptions(options, model.decoder.config);
      checkVerified('ask', checked, ask);
      createSampler(samplingOf(ask), model.sampling);
      const question = questionOf(words, ask);
      // A long question is tokenized when the answer is read, because reading can be aborted.
      if (!question.parts.some((part) => typeof part === 'string' && isLong(part))) draft(question);
      return readingOf((done) => {
        checkIdle();
        const releaseModel = model.lifetime?.hold();
        state = 'busy';
        return run(question, ask, done, releaseModel);
      });
    },
    async open(messages: unknown, options: { readonly signal?: AbortSignal } | undefined): Promise<void> {
      checkIdle();
      const { signal } = checkOptions<{ signal?: AbortSignal }>('open', options, { signal: SIGNAL });
      const checkedMessages = codedCall(() => checkMessages(messages));
      await exclusively(signal, () => openHistory(contextOf(signal), system, checkedMessages));
    },
    async save(file: string, options: { readonly signal?: AbortSignal } | undefined): Promise<void> {
      checkIdle();
      const { signal } = checkOptions<{ signal?: AbortSignal }>('save', options, { signal: SIGNAL });
      checkValue('save', 'file', file, NAME);
      const context = { model, method: method.name, kv: given.kv ?? 'bf16', conversation, signal };
      await exclusively(signal, () => saveConversation(file, context));
    },
    dispose: (): void => {
      if (state === 'busy') throw notIdle(state);
      if (state === 'idle') free();
    },
    /** Frees the memory of a dropped session, now or after the running answer; returns whether there was any. */
    release: (): boolean => {
      if (state === 'disposed') return false;
      isDropped = true;
      if (state === 'idle') free();
      return true;
    },
  };
}

function codedCall<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw coded(error);
  }
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
