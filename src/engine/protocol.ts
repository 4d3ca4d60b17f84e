// What the thread of an engine and its opener send each other.

import { types } from 'node:util';
import { codeOf, ERROR_CODES, type ErrorCode, messageOf, SparseVilaError } from '../errors';
import type {
  CountRequest,
  EngineEvent,
  EngineModel,
  EngineOptions,
  EngineRequest,
  EngineStats,
  TokenCounts,
} from './types';

/** The data of a new thread. */
export interface ThreadData {
  readonly name: string;
  readonly options: Omit<EngineOptions, 'signal' | 'onProgress'>;
  readonly hasProgress: boolean;
  /** Where the thread writes its statistics, so that reading them does not wait for it. */
  readonly stats: SharedArrayBuffer;
}

/** To the thread. The ids of requests are chosen by the opener. */
export type ToThread =
  | { readonly type: 'run'; readonly id: number; readonly request: EngineRequest }
  | { readonly type: 'count'; readonly id: number; readonly request: CountRequest }
  | { readonly type: 'abort'; readonly id: number }
  | { readonly type: 'close' };

/** From the thread. A request ends with `done` or `error`. */
export type FromThread =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'open'; readonly model: EngineModel }
  | { readonly type: 'refused'; readonly error: SentError }
  | { readonly type: 'event'; readonly id: number; readonly event: EngineEvent }
  | { readonly type: 'done'; readonly id: number; readonly counts?: TokenCounts }
  | { readonly type: 'error'; readonly id: number; readonly error: SentError }
  | { readonly type: 'closed' };

export type Progress = Parameters<NonNullable<EngineOptions['onProgress']>>[0];

export interface SentError {
  readonly code: ErrorCode;
  readonly message: string;
  /** The messages of its causes. */
  readonly causes: readonly string[];
}

export function sentError(error: unknown): SentError {
  const code = codeOf(error);
  const known = code !== undefined && code in ERROR_CODES ? (code as ErrorCode) : 'ERR_INTERNAL';
  const causes: string[] = [];
  for (let next = causeOf(error); next !== undefined && causes.length < 8; next = causeOf(next))
    causes.push(messageOf(next));
  return { code: known, message: messageOf(error), causes };
}

export function receivedError({ code, message, causes }: SentError): SparseVilaError {
  const cause = causes.reduceRight<Error | undefined>(
    (inner, text) => new Error(text, inner === undefined ? {} : { cause: inner }),
    undefined,
  );
  return new SparseVilaError(code, message, cause === undefined ? {} : { cause });
}

function causeOf(error: unknown): unknown {
  return types.isNativeError(error) ? error.cause : undefined;
}

const COUNTERS = ['running', 'waiting', 'kvBytes', 'cachedBytes', 'cachedPrefixes', 'cachedPictures'] as const;
const TOTALS = [
  ...(['requests', 'answered', 'failed', 'aborted', 'promptTokens', 'cachedTokens', 'generatedTokens'] as const),
] as const;

/** Memory for the statistics. */
export function statsMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer((COUNTERS.length + TOTALS.length) * Float64Array.BYTES_PER_ELEMENT);
}

export function writeStats(memory: SharedArrayBuffer, stats: EngineStats): void {
  new Float64Array(memory).set([...COUNTERS.map((name) => stats[name]), ...TOTALS.map((name) => stats.total[name])]);
}

export function readStats(memory: SharedArrayBuffer): EngineStats {
  const values = new Float64Array(memory);
  const named = <K extends string>(names: readonly K[], from: number) =>
    Object.fromEntries(names.map((name, i) => [name, values[from + i] ?? 0])) as Record<K, number>;
  return { ...named(COUNTERS, 0), total: named(TOTALS, COUNTERS.length) };
}
