// What a session and a question may be given, and the checks at the door.

import { SparseVilaError } from '../errors';
import type { ImageInput } from '../image/decode';
import type { KvType } from '../ops/kv_cache';
import type { SparsityMethod } from '../sparsity/method';
import type { SamplingOptions } from '../text/sampling';
import { stopMatcher } from '../text/stop';

/** Whether a turn's text stays for the next turn, or only its images do. */
export type History = 'keep' | 'evict';

export interface SessionOptions {
  /** Default: dense. */
  readonly method?: SparsityMethod;
  /** Storage of keys and values; default bf16. */
  readonly kv?: KvType;
  /** Rows the cache may hold; default what the model was made for, at most 32,768. Memory is taken as rows are written. */
  readonly contextLength?: number;
  /** Default 'keep'. */
  readonly history?: History;
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
  readonly history?: History;
}

const SESSION_KEYS = ['method', 'kv', 'contextLength', 'history', 'system'];
const SAMPLING_KEYS = ['temperature', 'topK', 'topP', 'repetitionPenalty', 'seed'] as const;
const ASK_KEYS = ['images', 'maxTokens', 'stop', 'signal', 'history', ...SAMPLING_KEYS];

/** The sampling options among those of a question. */
export function samplingOf(options: AskOptions): SamplingOptions {
  const given = SAMPLING_KEYS.filter((key) => options[key] !== undefined);
  return Object.fromEntries(given.map((key) => [key, options[key]]));
}

/** @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkSessionOptions(options: SessionOptions, maxPositions: number): void {
  checkKeys(options, SESSION_KEYS, 'session');
  const { method, kv, contextLength, history, system } = options;
  if (method !== undefined && !(typeof method === 'object' && typeof method?.name === 'string')) {
    throw invalid('method', 'a sparsity method, such as dense() or sparseVila(),', method);
  }
  if (system !== undefined && typeof system !== 'string') throw invalid('system', 'a text', system);
  if (kv !== undefined && kv !== 'bf16' && kv !== 'f32') throw invalid('kv', "'bf16' or 'f32'", kv);
  checkHistory(history);
  const fits = contextLength === undefined || (contextLength >= 2 && contextLength <= maxPositions);
  if (!fits || !Number.isInteger(contextLength ?? 0)) {
    throw invalid('contextLength', `an integer from 2 to ${maxPositions} (what the model was made for)`, contextLength);
  }
}

/** @throws SparseVilaError `ERR_OPTION_INVALID` */
export function checkAskOptions(options: AskOptions): void {
  checkKeys(options, ASK_KEYS, 'ask');
  const { maxTokens, images, stop, history, signal } = options;
  if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 1)) {
    throw invalid('maxTokens', 'an integer of at least 1', maxTokens);
  }
  if (images !== undefined && !Array.isArray(images)) throw invalid('images', 'a list of images', images);
  if (stop !== undefined && !(Array.isArray(stop) && stop.every((text) => typeof text === 'string'))) {
    throw invalid('stop', 'a list of strings', stop);
  }
  if (signal !== undefined && typeof signal?.throwIfAborted !== 'function')
    throw invalid('signal', 'an AbortSignal', signal);
  checkHistory(history);
  stopMatcher(stop ?? []);
}

function checkHistory(history: unknown): void {
  if (history !== undefined && history !== 'keep' && history !== 'evict') {
    throw invalid('history', "'keep' or 'evict'", history);
  }
}

function checkKeys(options: object, known: readonly string[], what: string): void {
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) throw invalid(`${what} options`, `only ${known.join(', ')}`, key);
  }
}

function invalid(name: string, expected: string, received: unknown): SparseVilaError {
  return new SparseVilaError('ERR_OPTION_INVALID', `Expected ${expected} for ${name}, received ${String(received)}.`);
}
