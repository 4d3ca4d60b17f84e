// What a conversation has in its KV cache: how many rows in each layer, which of them are visual, the next position, and where
// the chat template stands. Truncating is all that rewinding takes: what is there when a turn begins is never changed by it.

import { received, SparseVilaError } from '../errors';
import type { KvCache } from '../models/kv_cache';
import type { PreparedMedium } from '../models/media';
import type { Said, Turn } from '../models/transcript';
import type { VisualPlace } from '../sparsity/method';

/** What rows of the cache stand for, in their order: the id of a text row, or a run of visual rows with the texts around it. */
export type Item = number | RunItem;

export interface RunItem {
  readonly medium: number;
  /** Its number among the runs of the medium. */
  readonly run: number;
  /** Visual rows kept before the first layer, and text rows around them. */
  readonly kept: number;
  readonly around: number;
  /** Positions that the visual rows take. */
  readonly span: number;
}

/** A medium of a conversation. Its canvases stay, for a template that rewrites what was said before it. */
export interface KnownMedium {
  readonly prepared: PreparedMedium;
  /** The first medium of the same message: media of a message are pruned together. */
  readonly first: number;
}

/** What has been said, and the text that the cache stands for. */
export interface Script {
  readonly turns: readonly Turn[];
  /** Media of a question that has not been asked: they are in the cache, and stand before what is said next. */
  readonly open: readonly Said[];
  /** The text of all items and of what is pending; empty where the cache has to be compared id by id. */
  readonly text: string;
  /** Ids that were sampled and are not in the cache yet. */
  readonly pending: readonly number[];
}

/** A point in a conversation to come back to. Valid for the session that made it, until a rewind behind it. */
export interface Mark {
  /** Rows in the layer that has most. */
  readonly length: number;
  /** Rows of each layer, and how many of them are visual. */
  readonly layers: readonly { readonly length: number; readonly visual: number }[];
}

/** What a mark stands for. */
export interface Point extends Mark {
  /** The conversation, and how often it had been rewound. */
  readonly of: object;
  readonly rewinds: number;
  readonly nextPosition: number;
  readonly visual: number;
  readonly media: number;
  readonly ids: number;
  readonly items: number;
  readonly script: Script;
}

/** What marks stand for is kept here, and not in them, so that none can be made up or changed. */
const POINTS = new WeakMap<object, Point>();

/** What is known of one layer of the cache. Where a method drops rows between layers, deeper ones hold fewer. */
export interface CacheLayer {
  /** Rows of the conversation; the cache holds more while a prompt runs. */
  length: number;
  /** Rows that hold visual tokens, ascending. */
  readonly visual: number[];
  /** Which of the conversation's visual tokens they hold. */
  readonly tokens: number[];
}

export interface Conversation {
  readonly capacity: number;
  /** Grows with the conversation: a session that asks nothing costs nothing. */
  readonly cache: KvCache;
  readonly layers: readonly CacheLayer[];
  /** Position of the next text row; pruned tokens have taken theirs along. */
  nextPosition: number;
  /** Where each visual token lies. */
  readonly places: VisualPlace[];
  /** Its images and videos, numbered as in places and runs. */
  readonly media: KnownMedium[];
  /** Ids seen and generated so far, for the repetition penalty. */
  readonly ids: number[];
  readonly items: Item[];
  script: Script;
  rewinds: number;
  /** Where it was rewound to and as which rewind, rows ascending: a mark from before a cut and above it is void. */
  readonly cuts: { readonly length: number; readonly rewind: number }[];
}

/** A conversation that has an empty cache to itself, whose limit is its context. */
export function startConversation(cache: KvCache): Conversation {
  return {
    capacity: cache.limit,
    cache,
    layers: cache.lengths.map(() => ({ length: 0, visual: [], tokens: [] })),
    nextPosition: 0,
    places: [],
    media: [],
    ids: [],
    items: [],
    script: { turns: [], open: [], text: '', pending: [] },
    rewinds: 0,
    cuts: [],
  };
}

/** A conversation of its own that stands where `c` stands. Marks of `c` are none of its. @throws SparseVilaError `ERR_OUT_OF_MEMORY` */
export function forkConversation(c: Conversation): Conversation {
  return {
    ...startConversation(c.cache.fork()),
    layers: c.layers.map(({ length, visual, tokens }) => ({ length, visual: [...visual], tokens: [...tokens] })),
    nextPosition: c.nextPosition,
    places: [...c.places],
    media: [...c.media],
    ids: [...c.ids],
    items: [...c.items],
    script: c.script,
  };
}

/** Adds to a list that may grow beyond what the arguments of one call can hold. */
export function append<T>(list: T[], values: Iterable<T>): void {
  for (const value of values) list.push(value);
}

/** Rows in the layer that has most. */
export function lengthOf({ layers }: Conversation): number {
  return layers.reduce((most, { length }) => Math.max(most, length), 0);
}

/** Where the visual rows of a layer lie, from the from-th on. */
export function placesOf(c: Conversation, layer: number, from = 0): VisualPlace[] {
  return (c.layers[layer]?.tokens ?? []).slice(from).map((token) => c.places[token] as VisualPlace);
}

/** Where the conversation stands. */
export function pointAt(c: Conversation): Point {
  const { nextPosition, script, rewinds } = c;
  const layers = c.layers.map(({ length, visual }) => ({ length, visual: visual.length }));
  const counts = {
    nextPosition,
    visual: c.places.length,
    media: c.media.length,
    ids: c.ids.length,
    items: c.items.length,
  };
  return { of: c, rewinds, length: lengthOf(c), layers, ...counts, script };
}

export function mark(c: Conversation): Mark {
  const point = pointAt(c);
  const layers = Object.freeze(point.layers.map((layer) => Object.freeze({ ...layer })));
  const made: Mark = Object.freeze({ length: point.length, layers });
  POINTS.set(made, point);
  return made;
}

/** What `mark` stands for. @throws SparseVilaError `ERR_MARK` for anything that no session made */
export function pointOf(mark: unknown): Point {
  const point = typeof mark === 'object' && mark !== null ? POINTS.get(mark) : undefined;
  if (point !== undefined) return point;
  throw new SparseVilaError(
    'ERR_MARK',
    `Expected a mark that mark() of this session returned, received ${received(mark)}. Copies of a mark are none.`,
  );
}

/** Forgets everything after `to`. @throws SparseVilaError `ERR_MARK` for a point of another conversation or of rows that are gone. */
export function rewind(c: Conversation, to: Point): void {
  const length = lengthOf(c);
  const gone = c.cuts.some((cut) => cut.rewind > to.rewinds && cut.length < to.length);
  if (to.of !== c || gone) {
    throw new SparseVilaError(
      'ERR_MARK',
      `Expected a mark of the ${length} rows of this conversation, received one at row ${to.length} ` +
        `${to.of === c ? 'that the session was rewound behind' : 'of another session'}. Take a new one.`,
    );
  }
  for (const [i, layer] of c.layers.entries()) {
    const at = to.layers[i] as Point['layers'][number];
    layer.length = at.length;
    layer.visual.length = at.visual;
    layer.tokens.length = at.visual;
  }
  c.cache.truncate(to.layers.map((layer) => layer.length));
  c.nextPosition = to.nextPosition;
  c.places.length = to.visual;
  c.media.length = to.media;
  c.ids.length = to.ids;
  c.items.length = to.items;
  c.script = to.script;
  while ((c.cuts.at(-1)?.length ?? -1) >= to.length) c.cuts.pop();
  c.cuts.push({ length: to.length, rewind: ++c.rewinds });
}

/** Where the first `count` items of a conversation end, with what was said as it is. Rows that methods have dropped stay dropped. */
export function pointBefore(c: Conversation, count: number): Point {
  let [text, visual, span] = [0, 0, 0];

  for (const item of c.items.slice(0, count)) {
    if (typeof item === 'number') text++;
    else {
      text += item.around;
      visual += item.kept;
      span += item.span;
    }
  }
  const layers = c.layers.map(({ tokens }) => {
    const own = tokens.findIndex((token) => token >= visual);
    const held = own < 0 ? tokens.length : own;
    return { length: text + held, visual: held };
  });
  const length = layers.reduce((most, layer) => Math.max(most, layer.length), 0);
  const { rewinds, script } = c;
  const counts = { nextPosition: text + span, visual, media: c.media.length, ids: c.ids.length, items: count };
  return { of: c, rewinds, length, layers, ...counts, script };
}

/** @throws SparseVilaError `ERR_CONTEXT_OVERFLOW` when `rows` more rows, spanning `positions`, and one answer token do not fit. */
export function checkRoom(
  c: Conversation,
  rows: number,
  positions: number,
  known = '',
  from: Pick<Point, 'length' | 'nextPosition'> = { length: lengthOf(c), nextPosition: c.nextPosition },
): void {
  const { length } = from;
  const needed = Math.max(length + rows, from.nextPosition + positions) + 1;
  if (needed <= c.capacity) return;
  throw new SparseVilaError(
    'ERR_CONTEXT_OVERFLOW',
    `The conversation needs ${known === '' ? '' : `${known} `}${needed} tokens of context (${length} so far, ${rows} in this turn, 1 for an answer) but has ` +
      `${c.capacity}. Ask in a new session, rewind, forget each turn's text (history: 'forget'), use fewer images, or raise contextLength.`,
  );
}
