// The points of a conversation at which states are saved: layers that keep states can only go back to such a point. A point is a number of items.

import type { KvCache } from '../models/kv_cache';
import type { Conversation, Item, Mark } from './conversation';

/** Keeps what the cache saved for a mark, until the mark is collected. */
export function pin({ cache, pins }: Conversation, items: number, mark: Mark): void {
  if (!cache.hasStates) return;
  const own = { items };
  pins.add(own);
  DROPPED.register(mark, () => pins.delete(own));
}

/** Calls what releases a mark that was collected. */
const DROPPED = new FinalizationRegistry<() => void>((release) => release());

/**
 * Saves the states of the present point, where layers keep any, so that `truncateTo` can return to it.
 * @throws SparseVilaError `ERR_OUT_OF_MEMORY`
 */
export function savePoint({ cache, items }: Conversation): void {
  if (cache.hasStates && items.length > 0 && !cache.points.includes(items.length)) cache.save(items.length);
}

/** Frees what was saved at points that no mark needs, except at the last point up to `items`. */
export function forgetPoints({ cache, pins }: Conversation, items: number): void {
  const kept = new Set([...pins].map((one) => one.items)).add(cache.points.findLast((point) => point <= items) ?? 0);
  cache.forget((point) => !kept.has(point));
}

/** The largest number of the first items, up to `count`, that the cache can return to: `count`, unless layers keep states. */
export function restorable(
  { cache, items }: { readonly cache: KvCache; readonly items: readonly Item[] },
  count: number,
): number {
  if (!cache.hasStates || count === items.length) return count;
  return cache.points.findLast((point) => point <= count) ?? 0;
}
