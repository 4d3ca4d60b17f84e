// The interface of an engine: requests and events are plain data, which can be posted to a thread or stored in a queue.

import type { AnswerFormat } from '../grammar/constraint';
import type { LoadOptions } from '../models/model';
import type { KvType } from '../ops/kv_cache';
import type { FinishReason } from '../session/generate';
import type { ChatMessage } from '../session/history';
import type { StageTimes } from '../session/times';
import type { Refresh } from '../sparsity/method';
import type { MethodRatios } from '../sparsity/methods';
import type { TokenLogprob } from '../text/logprobs';
import type { SamplingOptions } from '../text/sampling';
import type { TurnCells } from './cells';

export type { AnswerFormat };

/** A row of `METHODS` by its name, with its ratios. A ratio that is not given is that of SparseVILA's preset for images (0.6 and 0.75). */
export interface SparsityRequest extends Partial<Omit<MethodRatios, 'localFrames'>> {
  readonly method: string;
  /** When what the answer attends is selected again, as with `refreshed`. Default: never. */
  readonly refresh?: Refresh;
  /** 'dense': the answer is that of dense decoding over what the method has kept, as with `verify` of `ask`. Default 'none'. */
  readonly verify?: 'dense' | 'none';
}

/** One request for one answer. Options that are not given are the engine's and the checkpoint's. */
export interface EngineRequest extends SamplingOptions {
  /** An optional system message first, then user and assistant alternate; the last one is the user's question. */
  readonly messages: readonly ChatMessage[];
  readonly sparsity?: SparsityRequest;
  /** Maximum number of answer tokens. Default from generation_config.json. */
  readonly maxTokens?: number;
  /** Strings at which the answer ends; they are not part of it. */
  readonly stop?: readonly string[];
  /** Number of alternatives whose log-probabilities come with each token; 0 for the token's own alone. Absent: none are computed. */
  readonly logprobs?: number;
  /** Added to the logits of these ids before sampling. */
  readonly logitBias?: Readonly<Record<number, number>>;
  readonly format?: AnswerFormat;
  /** Whether the end comes with the kept and attended cells of every picture and video; default false. */
  readonly cells?: boolean;
}

/** What of a request its tokens depend on. */
export type CountRequest = Pick<EngineRequest, 'messages' | 'sparsity'>;

export interface RunOptions {
  readonly signal?: AbortSignal;
  /**
   * Whether the buffers of pictures in the messages may be moved to the engine's thread instead of copied, where that is possible; they are
   * empty afterwards. Default false.
   */
  readonly transfer?: boolean;
}

/** Numbers of rows in the decoder, all of which take memory and time. */
export interface PromptTokens {
  /** Rows of the whole prompt, kept visual rows included. */
  readonly prompt: number;
  /** How many of them were in the engine's memory and were not prefilled again. */
  readonly cached: number;
  /** Visual tokens of all media before pruning, and those that entered the decoder. */
  readonly visualSeen: number;
  readonly visualKept: number;
}

export interface Usage extends PromptTokens {
  readonly generated: number;
  /** Number of visual rows that decoding attends; where layers differ, their mean, rounded. */
  readonly visualRetrieved: number;
  /** With `verify`: number of drafted tokens, and how many of them the answer took. Otherwise 0. */
  readonly drafted: number;
  readonly accepted: number;
}

/** Milliseconds of a request. */
export interface RequestTimes extends StageTimes {
  /** From the call of `run` to the beginning of its work, to the first text, and to the end. */
  readonly queue: number;
  readonly first: number;
  readonly total: number;
}

/** `begin` comes once, after the prefill; then any number of `text`; `end` is the last one. Errors are thrown by the iteration. */
export type EngineEvent =
  | { readonly type: 'begin'; readonly tokens: PromptTokens }
  | { readonly type: 'text'; readonly text: string; readonly logprobs?: readonly TokenLogprob[] }
  | {
      readonly type: 'end';
      readonly finish: FinishReason;
      readonly usage: Usage;
      readonly ms: RequestTimes;
      readonly cells?: TurnCells;
    };

/** Tokens of a request, known from the sizes of its pictures alone. */
export interface TokenCounts {
  /** Rows of text, and visual tokens before pruning. */
  readonly text: number;
  readonly visualSeen: number;
  /** Visual tokens after pruning. A method that chooses their number by what it sees may keep another number. */
  readonly visualKept: number;
}

export interface EngineStats {
  /** Requests that are answered, and those that wait. */
  readonly running: number;
  readonly waiting: number;
  /** Bytes of the KV caches of running requests, and of what is remembered. */
  readonly kvBytes: number;
  readonly cachedBytes: number;
  /** Conversations and pictures that are remembered. */
  readonly cachedPrefixes: number;
  readonly cachedPictures: number;
  /** Totals since the engine was opened. */
  readonly total: {
    readonly requests: number;
    readonly answered: number;
    readonly failed: number;
    readonly aborted: number;
    readonly promptTokens: number;
    readonly cachedTokens: number;
    readonly generatedTokens: number;
  };
}

/** Facts about the model of an engine. */
export interface EngineModel {
  /** The path or name that was given. */
  readonly name: string;
  /** The checkpoint folder. */
  readonly path: string;
  /** `model_type` of the checkpoint. */
  readonly family: string;
  /** Most rows of a conversation. */
  readonly contextLength: number;
  /** Default of `maxTokens`. */
  readonly maxNewTokens: number;
  readonly vocabSize: number;
  readonly videos: boolean;
}

export interface EngineOptions
  extends Pick<LoadOptions, 'revision' | 'weights' | 'precision' | 'maxPixels' | 'template' | 'signal' | 'onProgress'> {
  /** Whether pictures may be fetched from http(s) URLs. Default false. */
  readonly allowUrls?: boolean;
  /** Data type of keys and values in the cache; default bf16. */
  readonly kv?: KvType;
  /** Most rows of a conversation; default the model's `max_position_embeddings`, at most 32,768. */
  readonly contextLength?: number;
  /** Method of requests that name none; default dense. */
  readonly sparsity?: SparsityRequest;
  /**
   * Most bytes of conversations and pictures that are remembered for later requests, of which the least recently used are forgotten first; default
   * an eighth of the memory that is free when the engine is opened. 0: none.
   */
  readonly memoryBytes?: number;
  /** Most requests that are answered at once; default 16. */
  readonly maxRunning?: number;
  /** Most requests that wait for others; default 64. Further ones are refused with `ERR_ENGINE_FULL`. */
  readonly maxWaiting?: number;
}

/** A model that answers many requests at once, in a thread of its own: the caller's event loop stays free. */
export interface Engine {
  readonly model: EngineModel;
  /** Aborted if the engine's thread ends unexpectedly; the reason is `ERR_ENGINE_ENDED`. It answers nothing more, and is to be opened again. */
  readonly ended: AbortSignal;
  /**
   * Answers a request. The work begins at once, whether or not the events are read; leaving the iteration early ends it.
   * The iteration throws `ERR_ENGINE_FULL`, `ERR_ENGINE_ENDED`, `ERR_DISPOSED`, `ERR_OPTION_INVALID`, `ERR_QUESTION`, `ERR_CONTEXT_OVERFLOW`, `ERR_OUT_OF_MEMORY`, image
   * errors and `signal.reason`.
   */
  run(request: EngineRequest, options?: RunOptions): AsyncIterableIterator<EngineEvent>;
  /** Counts the tokens of a request without the vision tower. @throws SparseVilaError as `run` */
  count(request: CountRequest, options?: { readonly signal?: AbortSignal }): Promise<TokenCounts>;
  stats(): EngineStats;
  /**
   * Ends the engine and frees the model. Running requests end with `ERR_DISPOSED`; with `drain`, all that were accepted are answered first.
   * A second call waits for the first.
   */
  close(options?: { readonly drain?: boolean }): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
