// The state of a conversation: per layer, the rows in the KV cache and which of them are visual; the next position; the text so far.
// A turn never changes rows that were in the cache when it began, so that rewinding is truncating.

import { received, SparseVilaError } from '../errors';
import type { KvCache } from '../models/kv_cache';
import type { PreparedMedium } from '../models/media';
import type { MessagePart, Turn } from '../models/transcript';
import type { Position } from '../ops/rope';
import type { VisualPlace } from '../sparsity/method';
import { pin, restorable, savePoint } from './saved_points';

/** What one or more rows of the cache stand for, in the order of the cache: the id of a text row, or a run of visual rows with its texts. */
export type Item = number | RunItem;

export interface RunItem {
  readonly medium: number;
  /** Index among the runs of the medium. */
  readonly run: number;
  /** Number of visual rows kept before the first layer, and number of text rows around them. */
  readonly kept: number;
  readonly around: number;
  /** Number of positions that the visual rows take. */
  readonly advance: number;
}

/** A medium of a conversation. Its canvases are kept, because a template that rewrites history makes a later turn encode it again. */
export interface KnownMedium {
  readonly prepared: PreparedMedium;
  /** Index of the first medium of the same message: the media of a message are pruned together. */
  readonly first: number;
}

/** The messages of a conversation, and the text that the cache stands for. */
export interface Script {
  readonly turns: readonly Turn[];
  /** Media whose question was forgotten: they are in the cache, and belong to the next message. */
  readonly open: readonly MessagePart[];
  /** The text of all items and pending ids; empty if the cache has to be compared id by id. */
  readonly text: string;
  /** Ids that were sampled but are not in the cache yet. */
  readonly pending: readonly number[];
}

/** A point of a conversation to rewind to. It is valid for the session that made it, until that session is rewound to an earlier point. */
export interface Mark {
  /** Number of rows in the layer that has the most. */
  readonly length: number;
  /** Per layer, the number of rows and how many of them are visual. */
  readonly layers: readonly { readonly length: number; readonly visual: number }[];
}

/** The point that a mark refers to. */
export interface Point extends Mark {
  /** The conversation, and which of its states. */
  readonly of: object;
  readonly state: number;
  readonly nextPosition: number;
  readonly visual: number;
  readonly media: number;
  readonly ids: number;
  readonly items: number;
  readonly script: Script;
}

/** The points of marks are kept here and not in the marks, so that a caller can neither forge nor change one. */
const POINTS = new WeakMap<object, Point>();

/** A visual token of a conversation. */
export interface VisualToken extends VisualPlace {
  readonly position: Position;
}

/** One layer of the cache. Where a method drops rows between layers, deeper layers hold fewer. */
export interface CacheLayer {
  /** Number of rows of the conversation; during a prefill the cache holds more. */
  length: number;
  /** Indices of the rows that hold visual tokens, ascending. */
  readonly visual: number[];
  /** The visual tokens that these rows hold, as indices into `places`. */
  readonly tokens: number[];
}

/** What a frame is scored by. */
export interface FrameKey {
  /** Keys before rotary embedding: the mean alone, or so many of the frame's rows; f32 [n, kvHeads, c]. */
  readonly keys: Float32Array;
  /** Number of the frame's rows. */
  readonly rows: number;
}

export interface Conversation {
  readonly capacity: number;
  /** Allocated as rows are written, so that a session without a turn takes no memory. Replaced where a conversation begins with known rows. */
  cache: KvCache;
  /** Replaced with the cache. */
  layers: readonly CacheLayer[];
  /** Position of the next text row, after the positions of all earlier tokens, pruned ones included. */
  nextPosition: number;
  /** The place and position of each visual token of the conversation. */
  readonly places: VisualToken[];
  /** Per layer, the keys that frames are scored by, by their first visual token: made from the cache when a method first scores frames. */
  readonly frameKeys: Map<number, FrameKey>[];
  /** Images and videos of the conversation, in the order by which places and runs refer to them. */
  readonly media: KnownMedium[];
  /** Ids of the prompts and answers so far, for the repetition penalty. */
  readonly ids: number[];
  readonly items: Item[];
  script: Script;
  /**
   * The states that it can be rewound to, the present one last, each with a number of its own and the items that the cache still holds of
   * it: a template that rewrites history replaces the others.
   */
  readonly states: { readonly id: number; items: number }[];
  /** Number of states so far, of which some were left by rewinding. */
  changes: number;
  /** For each mark, the number of items after which the cache has saved what it needs, where the cache saves anything. */
  readonly pins: Set<{ items: number }>;
}

/** An empty conversation that owns the cache; the limit of the cache is the context length. */
export function startConversation(cache: KvCache): Conversation {
  return {
    capacity: cache.limit,
    cache,
    layers: cache.lengths.map(() => ({ length: 0, visual: [], tokens: [] })),
    nextPosition: 0,
    places: [],
    frameKeys: cache.lengths.map(() => new Map()),
    media: [],
    ids: [],
    items: [],
    script: { turns: [], open: [], text: '', pending: [] },
    states: [{ id: 0, items: 0 }],
    changes: 0,
    pins: new Set(),
  };
}

/** A new conversation in the state of another, with a copy of its cache. Marks of the other are not valid for it. @throws SparseVilaError `ERR_OUT_OF_MEMORY` */
export function forkConversation(conversation: Conversation): Conversation {
  return {
    ...startConversation(conversation.cache.fork()),
    layers: conversation.layers.map(({ length, visual, tokens }) => ({
      length,
      visual: [...visual],
      tokens: [...tokens],
    })),
    nextPosition: conversation.nextPosition,
    places: [...conversation.places],
    frameKeys: conversation.frameKeys.map((keys) => new Map(keys)),
    media: [...conversation.media],
    ids: [...conversation.ids],
    items: [...conversation.items],
    script: conversation.script,
    states: [{ id: 0, items: conversation.items.length }],
  };
}

/** Appends one by one: a call cannot take arbitrarily many arguments. */
export function append<T>(list: T[], values: Iterable<T>): void {
  for (const value of values) list.push(value);
}

/** Number of rows in the layer that has the most. */
export function lengthOf({ layers }: Conversation): number {
  return layers.reduce((most, { length }) => Math.max(most, length), 0);
}

/** The places of a layer's visual rows, starting at the from-th. */
export function placesOf(conversation: Conversation, layer: number, from = 0): VisualToken[] {
  return (conversation.layers[layer]?.tokens ?? [])
    .slice(from)
    .map((token) => conversation.places[token] as VisualToken);
}

/** A mark of the present state. */
export function pointAt(conversation: Conversation): Point {
  const { nextPosition, script } = conversation;
  const layers = conversation.layers.map(({ length, visual }) => ({ length, visual: visual.length }));
  const counts = {
    nextPosition,
    visual: conversation.places.length,
    media: conversation.media.length,
    ids: conversation.ids.length,
    items: conversation.items.length,
  };
  const state = stateOf(conversation);
  return { of: conversation, state, length: lengthOf(conversation), layers, ...counts, script };
}

/** @throws SparseVilaError `ERR_OUT_OF_MEMORY` for states that cannot be copied */
export function mark(conversation: Conversation): Mark {
  const point = pointAt(conversation);
  savePoint(conversation);
  const layers = Object.freeze(point.layers.map((layer) => Object.freeze({ ...layer })));
  const made: Mark = Object.freeze({ length: point.length, layers });
  POINTS.set(made, point);
  pin(conversation, point.items, made);
  return made;
}

/** The point that a mark refers to. @throws SparseVilaError `ERR_MARK` for a value that no session returned */
export function pointOf(mark: unknown): Point {
  const point = typeof mark === 'object' && mark !== null ? POINTS.get(mark) : undefined;
  if (point !== undefined) return point;
  throw new SparseVilaError(
    'ERR_MARK',
    `Expected a mark that mark() of this session returned, received ${received(mark)}. A copy of a mark is not valid.`,
  );
}

function stateOf({ states }: Conversation): number {
  return (states.at(-1) as Conversation['states'][number]).id;
}

/** Makes a state of what has been said; marks of the earlier states stay valid. */
export function commit(conversation: Conversation): void {
  conversation.states.push({ id: ++conversation.changes, items: conversation.items.length });
}

/**
 * Goes back to the state of a mark and leaves those after it. Where a template has rewritten the rows of that state since, the next question
 * prefills them again.
 * @throws SparseVilaError `ERR_MARK` for a point of another conversation or of a state that was left
 */
export function rewind(conversation: Conversation, to: Point): void {
  const { states } = conversation;
  const index = to.of === conversation ? states.findLastIndex(({ id }) => id === to.state) : -1;
  const state = states[index];
  if (state === undefined) {
    throw new SparseVilaError(
      'ERR_MARK',
      `Expected a mark of the ${lengthOf(conversation)} rows of this conversation, received one at row ${to.length} ` +
        `${to.of === conversation ? 'that the session was rewound behind' : 'of another session'}. Take a new one.`,
    );
  }
  states.length = index + 1;
  const { media, ids, items } = to;
  const script = { ...to.script, text: '', pending: [] };
  for (const one of [...conversation.pins]) if (one.items > items) conversation.pins.delete(one);
  const left = restorable(conversation, Math.min(state.items, items));
  const held = { ...pointBefore(conversation, left), media, ids, script };
  truncateTo(conversation, left < items ? held : to);
}

/** Keeps the first `count` items of a conversation, whose template has rewritten the rest. The messages and media do not change. */
export function keepItems(conversation: Conversation, count: number): void {
  truncateTo(conversation, pointBefore(conversation, count));
  conversation.script = { ...conversation.script, text: '', pending: [] };
  for (const one of [...conversation.states, ...conversation.pins]) one.items = Math.min(one.items, count);
}

/** Removes everything after `to`, whose rows are as they were. */
export function truncateTo(conversation: Conversation, to: Point): void {
  for (const [i, layer] of conversation.layers.entries()) {
    const at = to.layers[i] as Point['layers'][number];
    layer.length = at.length;
    layer.visual.length = at.visual;
    layer.tokens.length = at.visual;
  }
  const lengths = to.layers.map((layer) => layer.length);
  conversation.cache.truncate(lengths, to.items);
  conversation.cache.forget((point) => point > to.items);
  conversation.nextPosition = to.nextPosition;
  conversation.places.length = to.visual;
  for (const keys of conversation.frameKeys)
    for (const [first, { rows }] of keys) if (first + rows > to.visual) keys.delete(first);
  conversation.media.length = to.media;
  conversation.ids.length = to.ids;
  conversation.items.length = to.items;
  conversation.script = to.script;
}

/** The point at which the first `count` items of a conversation end. Messages stay, and rows that methods have dropped stay dropped. */
export function pointBefore(conversation: Conversation, count: number): Point {
  const rows = rowsBefore(conversation, count);
  const length = rows.layers.reduce((most, layer) => Math.max(most, layer.length), 0);
  const { media, ids, script } = conversation;
  const counts = { media: media.length, ids: ids.length, items: count };
  return { of: conversation, state: stateOf(conversation), length, ...rows, ...counts, script };
}

/** What the first `count` items leave in the cache: per layer the rows, and how many of them are visual. */
export function rowsBefore(
  { items, layers }: { readonly items: readonly Item[]; readonly layers: readonly Readonly<CacheLayer>[] },
  count: number,
): Pick<Point, 'layers' | 'visual' | 'nextPosition'> {
  let [text, visual, advance] = [0, 0, 0];
  for (const item of items.slice(0, count)) {
    text += typeof item === 'number' ? 1 : item.around;
    visual += typeof item === 'number' ? 0 : item.kept;
    advance += typeof item === 'number' ? 0 : item.advance;
  }
  const held = layers.map(({ tokens }) => {
    // Tokens ascend, and most points follow all of them.
    const isAfter = (tokens.at(-1) ?? -1) < visual;
    const own = isAfter ? tokens.length : tokens.findIndex((token) => token >= visual);
    return { length: text + own, visual: own };
  });
  return { layers: held, visual, nextPosition: text + advance };
}
