// A conversation with a model: images and questions in, streamed answers out. The only place that knows models and sparsity
// both. Each turn is a transaction: if it throws or is aborted, the conversation is as it was before.

import { SparseVilaError } from '../errors';
import type { ImageInput } from '../image/decode';
import { breather } from '../models/breath';
import type { VisionLanguageModel } from '../models/model';
import type { KvType } from '../ops/kv_cache';
import { dense } from '../sparsity/dense';
import type { SparsityMethod } from '../sparsity/method';
import { createSampler, type SamplingOptions } from '../text/sampling';
import { stopMatcher } from '../text/stop';
import { turnPieces } from '../text/template';
import { type Mark, mark, rewind, startConversation } from './conversation';
import { type FinishReason, type Generated, generate } from './generate';
import { type PrunedImage, prefill, type StageTimes, seeImages, timed } from './prefill';
import { turnPrompt } from './prompt';
import { turnView } from './view';

export interface SessionOptions {
  /** Default: dense. */
  readonly method?: SparsityMethod;
  /** Storage of keys and values; default bf16. */
  readonly kv?: KvType;
  /** Rows the cache may hold; default what the model was made for, at most 32,768. Memory is taken as rows are written. */
  readonly contextLength?: number;
  /** Whether a turn's text stays for the next turn, or only its images do. Default 'keep'. */
  readonly history?: 'keep' | 'evict';
  /** System message, where the template has a place for one. */
  readonly system?: string;
}

export interface AskOptions extends SamplingOptions {
  /** Images this turn adds before its words. */
  readonly images?: readonly ImageInput[];
  /** Most tokens of the answer. Default from generation_config.json. */
  readonly maxTokens?: number;
  /** The answer ends before any of these. */
  readonly stop?: readonly string[];
  readonly signal?: AbortSignal;
  /** Overrides the session's for this turn. */
  readonly history?: 'keep' | 'evict';
}

export interface TurnStats {
  readonly tokens: {
    /** Visual tokens of this turn's images, and those that stay in the cache (of all turns so far). */
    readonly visualSeen: number;
    readonly visualKept: number;
    /** Visual rows that this turn's decoding attends per layer. */
    readonly visualRetrieved: number;
    /** Rows that this turn's prompt put into the cache. */
    readonly prompt: number;
    readonly generated: number;
  };
  /** Milliseconds. `retrieve` holds both selections; `perToken` is the mean decoder step. */
  readonly ms: StageTimes & { readonly perToken: number; readonly total: number };
  readonly finish: FinishReason;
  /** What was kept of each image of this turn, and per layer which of all kept visual rows were retrieved. */
  readonly images: readonly Omit<PrunedImage, 'rows'>[];
  readonly retrieved: readonly Int32Array[] | undefined;
}

/** A streamed answer. Nothing runs before it is iterated; leaving the loop early keeps the text so far in the conversation. */
export interface Answer extends AsyncIterable<string> {
  /** The whole text. */
  text(): Promise<string>;
  /** Once the answer is complete. */
  readonly stats: TurnStats | undefined;
}

export interface Session {
  readonly model: VisionLanguageModel;
  readonly method: SparsityMethod;
  /** Rows in the cache. */
  readonly length: number;
  /**
   * Asks. Bad arguments throw at once; the answer's iteration throws `ERR_BUSY` while another answer runs,
   * `ERR_CONTEXT_OVERFLOW`, image errors, `signal.reason`.
   */
  ask(question: string, options?: AskOptions): Answer;
  /** A point to come back to with `rewind`. */
  mark(): Mark;
  rewind(to: Mark): void;
  dispose(): void;
  [Symbol.dispose](): void;
}

const SESSION_KEYS = ['method', 'kv', 'contextLength', 'history', 'system'];
const ASK_KEYS = [
  'images',
  'maxTokens',
  'stop',
  'signal',
  'history',
  'temperature',
  'topK',
  'topP',
  'repetitionPenalty',
  'seed',
];
const DEFAULT_CONTEXT = 32768;

/** Opens a conversation. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function createSession(model: VisionLanguageModel, options: SessionOptions = {}): Session {
  checkSessionOptions(options, model.decoder.config.maxPositions);
  const method = options.method ?? dense();
  const pieces = turnPieces(model.template, options.system === undefined ? {} : { system: options.system });
  const capacity = options.contextLength ?? Math.min(model.decoder.config.maxPositions, DEFAULT_CONTEXT);
  const c = startConversation(model.decoder, capacity, options.kv ?? 'bf16');
  let state: 'idle' | 'busy' | 'disposed' = 'idle';

  const alive = (): void => {
    if (state === 'disposed')
      throw new SparseVilaError(
        'ERR_DISPOSED',
        'This session has been disposed of. Open a new one with model.session().',
      );
  };
  const idle = (): void => {
    alive();
    if (state === 'busy')
      throw new SparseVilaError(
        'ERR_BUSY',
        'Another answer of this session is still running. Finish or abort it first, or open a second session.',
      );
  };

  async function* turn(question: string, ask: AskOptions, done: (stats: TurnStats) => void): AsyncGenerator<string> {
    idle();
    state = 'busy';
    const before = mark(c);
    let after = before;
    const begin = performance.now();
    const times: StageTimes = { image: 0, tower: 0, project: 0, prefill: 0, retrieve: 0 };
    const breathe = breather(ask.signal);
    const context = { model, method, conversation: c, times, signal: ask.signal, breathe };
    let images: PrunedImage[] = [];
    let view: ReturnType<typeof turnView> | undefined;
    let failed = true;
    try {
      ask.signal?.throwIfAborted();
      const prompt = turnPrompt(model, pieces, c, question, ask.images?.length ?? 0);
      images = await seeImages(context, ask.images ?? []);
      const { logits, relevance } = await timed(times, 'prefill', () =>
        prefill(context, prompt, images, () => {
          if (images.length === 0) return;
          c.phase = { at: 'open', opened: prompt.opened, markers: prompt.markers, first: prompt.first };
          after = mark(c);
        }),
      );
      const promptRows = c.length - before.length;
      view = await timed(times, 'retrieve', () => turnView(method, c, relevance));
      const sampler = createSampler({ ...model.sampling, ...samplingOf(ask) });
      const options = { maxTokens: ask.maxTokens ?? model.maxNewTokens, stop: ask.stop ?? [], breathe };
      failed = false;
      const result: Generated = yield* guarded(generate(model, c, view, sampler, logits, options), () => {
        failed = true;
      });
      done(summary(result, promptRows));
    } finally {
      view?.dispose();
      for (const { rows } of images) rows.dispose();
      if (state === 'busy') state = 'idle';
      if (failed) rewind(c, before);
      else if ((ask.history ?? options.history) === 'evict') rewind(c, after);
    }

    function summary(result: Generated, promptRows: number): TurnStats {
      return {
        tokens: {
          visualSeen: images.reduce((sum, image) => sum + image.tokens, 0),
          visualKept: c.visual.length,
          visualRetrieved: view?.retrieved?.[0]?.length ?? c.visual.length,
          prompt: promptRows,
          generated: result.tokens,
        },
        ms: { ...times, perToken: result.steps === 0 ? 0 : result.ms / result.steps, total: performance.now() - begin },
        finish: result.finish,
        images: images.map(({ grid, tokens, kept, salience }) => ({ grid, tokens, kept, salience })),
        retrieved: view?.retrieved,
      };
    }
  }

  const dispose = (): void => {
    if (state === 'disposed') return;
    if (state === 'busy')
      throw new SparseVilaError(
        'ERR_BUSY',
        'An answer of this session is still running. Finish or abort it before disposing.',
      );
    state = 'disposed';
    for (const kv of c.cache) kv.dispose();
  };

  return {
    model,
    method,
    get length() {
      return c.length;
    },
    ask(question, ask = {}) {
      idle();
      checkAskOptions(ask);
      createSampler({ ...model.sampling, ...samplingOf(ask) });
      turnPrompt(model, pieces, c, question, ask.images?.length ?? 0);
      return answerOf((done) => turn(question, ask, done));
    },
    mark: () => {
      idle();
      return mark(c);
    },
    rewind: (to) => {
      idle();
      rewind(c, to);
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
}

/** Passes a generator through; `onError` runs when it throws, not when its consumer leaves. */
async function* guarded<R>(source: AsyncGenerator<string, R>, onError: () => void): AsyncGenerator<string, R> {
  try {
    return yield* source;
  } catch (error) {
    onError();
    throw error;
  }
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

function samplingOf({ temperature, topK, topP, repetitionPenalty, seed }: AskOptions): SamplingOptions {
  const given = Object.entries({ temperature, topK, topP, repetitionPenalty, seed }).filter(
    ([, value]) => value !== undefined,
  );
  return Object.fromEntries(given);
}

function checkSessionOptions(options: SessionOptions, maxPositions: number): void {
  checkKeys(options, SESSION_KEYS, 'session');
  const { kv, contextLength, history } = options;
  if (kv !== undefined && kv !== 'bf16' && kv !== 'f32') throw invalid('kv', "'bf16' or 'f32'", kv);
  if (history !== undefined && history !== 'keep' && history !== 'evict')
    throw invalid('history', "'keep' or 'evict'", history);
  if (
    contextLength !== undefined &&
    !(Number.isInteger(contextLength) && contextLength >= 2 && contextLength <= maxPositions)
  ) {
    throw invalid('contextLength', `an integer from 2 to ${maxPositions} (what the model was made for)`, contextLength);
  }
}

function checkAskOptions(options: AskOptions): void {
  checkKeys(options, ASK_KEYS, 'ask');
  const { maxTokens, images, stop, history } = options;
  if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 1))
    throw invalid('maxTokens', 'an integer of at least 1', maxTokens);
  if (images !== undefined && !Array.isArray(images)) throw invalid('images', 'a list of images', images);
  if (stop !== undefined && !Array.isArray(stop)) throw invalid('stop', 'a list of strings', stop);
  if (history !== undefined && history !== 'keep' && history !== 'evict')
    throw invalid('history', "'keep' or 'evict'", history);
  stopMatcher(stop ?? []);
}

function checkKeys(options: object, known: readonly string[], what: string): void {
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) throw invalid(`${what} options`, `only ${known.join(', ')}`, key);
  }
}

function invalid(name: string, expected: string, received: unknown): SparseVilaError {
  return new SparseVilaError('ERR_OPTION_INVALID', `Expected ${expected} for ${name}, received ${String(received)}.`);
}
