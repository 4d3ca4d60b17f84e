// What a conversation has in its KV cache: how many rows, at which positions, which of them are visual, and where the chat
// template stands. Truncating is all that rewinding takes, because rows are only ever appended.

import type { Tensor } from '@tensorflow/tfjs-core';
import { SparseVilaError } from '../errors';
import type { Decoder } from '../models/decoder';
import type { KvType } from '../ops/kv_cache';

/**
 * Where the template stands: nothing yet; inside a user's turn whose images are in the cache (`opened` is its text so far,
 * markers included); or after an answer, whose `pending` ids were sampled but are not in the cache yet.
 */
export type Phase =
  | { readonly at: 'start' }
  | { readonly at: 'open'; readonly opened: string; readonly markers: number; readonly first: boolean }
  | { readonly at: 'answered'; readonly pending: readonly number[] };

/** A point in a conversation to come back to. Valid for the session that made it, until a rewind behind it. */
export interface Mark {
  readonly length: number;
  readonly nextPosition: number;
  readonly visual: number;
  readonly ids: number;
  readonly phase: Phase;
}

export interface Conversation {
  readonly capacity: number;
  readonly cache: readonly Tensor[];
  /** Rows in the cache. */
  length: number;
  /** Position of the next text row; pruned tokens have taken theirs along. */
  nextPosition: number;
  /** Cache rows that hold visual tokens, ascending. */
  readonly visual: number[];
  /** Ids seen and generated so far, for the repetition penalty. */
  readonly ids: number[];
  phase: Phase;
}

export function startConversation(decoder: Decoder, capacity: number, kv: KvType): Conversation {
  return {
    capacity,
    cache: decoder.allocate(capacity, kv),
    length: 0,
    nextPosition: 0,
    visual: [],
    ids: [],
    phase: { at: 'start' },
  };
}

export function mark(c: Conversation): Mark {
  const { length, nextPosition, phase } = c;
  return { length, nextPosition, visual: c.visual.length, ids: c.ids.length, phase };
}

/** Forgets everything after `to`. @throws SparseVilaError `ERR_MARK` for a mark that lies ahead of the conversation. */
export function rewind(c: Conversation, to: Mark): void {
  if (to.length > c.length || to.visual > c.visual.length || to.ids > c.ids.length) {
    throw new SparseVilaError(
      'ERR_MARK',
      `Expected a mark at or before row ${c.length} of this conversation, received one at row ${to.length}. ` +
        'A mark ends when the session is rewound behind it.',
    );
  }
  c.length = to.length;
  c.nextPosition = to.nextPosition;
  c.visual.length = to.visual;
  c.ids.length = to.ids;
  c.phase = to.phase;
}

/** @throws SparseVilaError `ERR_CONTEXT_OVERFLOW` when `rows` more rows, spanning `positions`, and one answer token do not fit. */
export function checkRoom(c: Conversation, rows: number, positions: number): void {
  const needed = Math.max(c.length + rows, c.nextPosition + positions) + 1;
  if (needed <= c.capacity) return;
  throw new SparseVilaError(
    'ERR_CONTEXT_OVERFLOW',
    `The conversation needs ${needed} tokens of context (${c.length} so far, ${rows} in this turn, 1 for an answer) but has ` +
      `${c.capacity}. Ask in a new session, rewind, evict turns (history: 'evict'), use fewer images, or raise contextLength.`,
  );
}
