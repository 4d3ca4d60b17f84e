// Conversations held twice, once with drafts that are verified and once densely: the same prefill, no retrieval.

import type { AskOptions, SessionOptions, SparsityMethod } from '../../src';
import { isStateLayer } from '../../src/models/config';
import type { KvCache } from '../../src/models/kv_cache';
import type { VisionLanguageModel } from '../../src/models/model';
import { readKv } from '../../src/ops/kv_cache';
import { floats } from '../../src/ops/run';
import * as lengths from '../../src/session/draft_length';
import { createSession, type Session } from '../../src/session/session';

export interface Asked extends AskOptions {
  readonly question: string;
}

export interface Told {
  readonly texts: string[];
  /** Per turn, ids and log-probabilities of all tokens, and how the answer ended. */
  readonly tokens: unknown[];
  /** Bits of the cache after each turn. */
  readonly rows: Float32Array[][];
  readonly drafted: number;
  readonly accepted: number;
}

/** The method without its retrieval: what it decodes is dense decoding over what it has kept. A permanent retrieval has discarded rows, and stays. */
export function withoutRetrieval({ retrieve, ...method }: SparsityMethod): SparsityMethod {
  return retrieve?.permanent ? { ...method, retrieve } : method;
}

/** Holds a conversation; `between` may use the session after each turn. */
export async function tell(
  model: VisionLanguageModel,
  session: SessionOptions,
  turns: readonly Asked[],
  between: (session: Session, turn: number) => void = () => undefined,
): Promise<Told> {
  const { decoder } = model;
  let cache: KvCache | undefined;
  const seen = (...given: Parameters<typeof decoder.cache>): KvCache => {
    cache = decoder.cache(...given);
    return cache;
  };
  using chat = createSession({ ...model, decoder: { ...decoder, cache: seen } }, session);
  const told = {
    texts: [] as string[],
    tokens: [] as unknown[],
    rows: [] as Float32Array[][],
    drafted: 0,
    accepted: 0,
  };
  for (const [turn, { question, ...options }] of turns.entries()) {
    const answer = chat.ask(question, { logprobs: 3, ...options });
    told.texts.push(await answer.text());
    const { stats } = answer;
    told.tokens.push({ finish: stats?.finish, logprobs: stats?.logprobs });
    told.rows.push(rowsOf(model, cache as unknown as KvCache));
    told.drafted += stats?.tokens.drafted ?? 0;
    told.accepted += stats?.tokens.accepted ?? 0;
    between(chat, turn);
  }
  return told;
}

/** The counted rows of every layer that keeps keys and values. */
function rowsOf({ decoder: { config } }: VisionLanguageModel, cache: KvCache): Float32Array[] {
  return cache.lengths.flatMap((length, layer) => {
    if (isStateLayer(config, layer)) return [];
    const rows = readKv(cache.tensor(layer), 0, length, config.headDim);
    const values = floats(rows).slice();
    rows.dispose();
    return [values];
  });
}

/** Fixes the source and the number of tokens of every draft, until the returned function is called. */
export function draftsOf(count: (round: number) => number, source: 'view' | 'lookup' = 'view'): () => void {
  const spy = jest.spyOn(lengths, 'draftLength').mockImplementation(() => {
    let round = 0;
    return {
      next: (most) => ({ source, tokens: Math.min(most[source], count(round++)) }),
      drafted: () => undefined,
      passed: () => undefined,
      judged: () => undefined,
    };
  });
  return () => spy.mockRestore();
}
