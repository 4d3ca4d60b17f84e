// The beginning of a conversation apart from it: rows that other conversations may begin with, because rows do not depend on those after them.

import type { KvCache } from '../models/kv_cache';
import type { VisionLanguageModel } from '../models/model';
import {
  append,
  type CacheLayer,
  type Conversation,
  type Item,
  type Point,
  rowsBefore,
  type VisualToken,
} from './conversation';
import { idsAround } from './decoder_rows';

/** Rows with the state that a conversation has after them. Its owner disposes of the cache. */
export interface Prefix {
  readonly items: readonly Item[];
  readonly ids: readonly number[];
  readonly places: readonly VisualToken[];
  readonly layers: readonly Readonly<CacheLayer>[];
  readonly nextPosition: number;
  readonly cache: KvCache;
}

/**
 * The first `count` items of a conversation.
 * @param moves whether the conversation's cache is taken and not copied; the conversation must not be used afterwards
 * @throws SparseVilaError `ERR_OUT_OF_MEMORY`
 */
export function prefixOf(model: VisionLanguageModel, conversation: Conversation, count: number, moves = false): Prefix {
  const { layers, visual, nextPosition } = rowsBefore(conversation, count);
  const lengths = layers.map(({ length }) => length);
  const { cache } = conversation;
  if (moves) cache.truncate(lengths, count);
  return {
    items: conversation.items.slice(0, count),
    ids: conversation.ids.slice(0, idsIn(model, conversation, count)),
    places: conversation.places.slice(0, visual),
    layers: layersAt(conversation, layers),
    nextPosition,
    cache: moves ? cache : cache.fork(lengths, count),
  };
}

/** A copy of the rows of the first `count` items of a prefix. `room`: the number of rows that are expected to follow. @throws SparseVilaError `ERR_OUT_OF_MEMORY` */
export function copyRows(prefix: Prefix, count: number, room: number): KvCache {
  const { layers } = rowsBefore(prefix, count);
  return prefix.cache.fork(
    layers.map(({ length }) => length),
    count,
    room,
  );
}

/**
 * Gives a conversation without rows the first `count` items of a prefix, with a cache that `copyRows` made of it. Its media must be those of the
 * prefix, as far as these items refer to them.
 */
export function beginWith(
  model: VisionLanguageModel,
  conversation: Conversation,
  prefix: Prefix,
  count: number,
  cache: KvCache,
): void {
  const { layers, visual, nextPosition } = rowsBefore(prefix, count);
  conversation.cache.dispose();
  conversation.cache = cache;
  append(conversation.items, prefix.items.slice(0, count));
  append(conversation.ids, prefix.ids.slice(0, idsIn(model, conversation, count)));
  append(conversation.places, prefix.places.slice(0, visual));
  conversation.layers = layersAt(prefix, layers);
  conversation.nextPosition = nextPosition;
}

/** Copies of layers, as they are at a point. */
function layersAt(of: { readonly layers: readonly Readonly<CacheLayer>[] }, point: Point['layers']): CacheLayer[] {
  return point.map(({ length, visual }, i) => {
    const own = of.layers[i] as CacheLayer;
    return { length, visual: own.visual.slice(0, visual), tokens: own.tokens.slice(0, visual) };
  });
}

/** The number of ids that the first `count` items of a conversation stand for. */
function idsIn(model: VisionLanguageModel, { items, media }: Conversation, count: number): number {
  const hasMarker = model.marker.id < model.decoder.config.vocabSize;
  return items.slice(0, count).reduce<number>((sum, item) => {
    if (typeof item === 'number') return sum + 1;
    const run = media[item.medium]?.prepared.layout.runs[item.run];
    const around = idsAround(model, run?.before).length + idsAround(model, run?.after).length;
    return sum + around + (hasMarker ? 1 : 0);
  }, 0);
}
