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
  /** The conversation, and how often it had been rewound. */
  readonly of: object;
  readonly rewinds: number;
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
  rewinds: number;
  /** Where it was rewound to and as which rewind, rows ascending: a mark from before a cut and above it is void. */
  readonly cuts: { readonly length: number; readonly rewind: number }[];
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
    rewinds: 0,
    cuts: [],
  };
}

export function mark(c: Conversation): Mark {
  const { length, nextPosition, phase, rewinds } = c;
  return { of: c, rewinds, length, nextPosition, visual: c.visual.length, ids: c.ids.length, phase };
}

/** Forgets everything after `to`. @throws SparseVilaError `ERR_MARK` for a mark of another conversation or of rows that are gone. */
export function rewind(c: Conversation, to: Mark): void {
  const gone = c.cuts.some((cut) => cut.rewind > to.rewinds && cut.length < to.length);
  if (to.of !== c || gone) {
    throw new SparseVilaError(
      'ERR_MARK',
      `Expected a mark of the ${c.length} rows of this conversation, received one at row ${to.length} ` +
        `${to.of === c ? 'that the session was rewound behind' : 'of another session'}. Take a new one.`,
    );
  }
  c.length = to.length;
  c.nextPosition = to.nextPosition;
  c.visual.length = to.visual;
  c.ids.length = to.ids;
  c.phase = to.phase;
  while ((c.cuts.at(-1)?.length ?? -1) >= to.length) c.cuts.pop();
  c.cuts.push({ length: to.length, rewind: ++c.rewinds });
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
