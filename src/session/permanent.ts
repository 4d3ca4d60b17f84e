// Permanent retrieval: rows of this turn's media that `retrieve` leaves out are removed from the cache in every layer that attends
// everything, and later rows move up. Rows from before the turn do not change, so that marks stay valid.

import { attendsAll, type DecoderConfig } from '../models/config';
import type { SparsityMethod } from '../sparsity/method';
import { type CacheLayer, type Conversation, type Point, placesOf } from './conversation';
import { checkSelection } from './selection';

/**
 * Retrieves among the visual rows that were added after `before`, once per layer. Returns the new location of `anchor`, a point at or after
 * `before`: it moves towards the start by the number of rows that were removed before it.
 */
export function retrievePermanently(
  { name, retrieve }: SparsityMethod,
  conversation: Conversation,
  relevance: readonly Float32Array[],
  { before, anchor, config }: { before: Point; anchor: Point; config: DecoderConfig },
): Point {
  if (retrieve?.permanent !== true || conversation.places.length === before.visual) return anchor;
  const layers = anchor.layers.map(({ length, visual }, i) => {
    if (!attendsAll(config, i)) return { length, visual };
    const old = before.layers[i]?.visual ?? 0;
    const places = placesOf(conversation, i, old);
    const scores = (relevance[i] as Float32Array).slice(old);
    const kept = checkSelection(name, 'retrieve', retrieve.select(scores, i, places, places.length), places.length);
    if (kept.length < places.length) keepVisual(conversation, i, { old, kept });
    const left = old + kept.filter((at) => old + at < visual).length;
    return { length: length - (visual - left), visual: left };
  });
  return { ...anchor, layers, length: layers.reduce((most, { length }) => Math.max(most, length), 0) };
}

/** Keeps the `kept` ones of a layer's visual rows, counted from the old-th. */
export function keepVisual(
  conversation: Conversation,
  i: number,
  { old, kept }: { old: number; kept: Int32Array },
): void {
  const layer = conversation.layers[i] as CacheLayer;
  const { visual, tokens, length } = layer;
  const begin = visual[old] as number;
  const stays = new Uint8Array(length - begin).fill(1);
  for (const row of visual.slice(old)) stays[row - begin] = 0;
  for (const at of kept) stays[(visual[old + at] as number) - begin] = 1;
  const rows = Int32Array.from(stays.keys()).filter((row) => stays[row] === 1);
  conversation.cache.keep(i, begin, rows);
  const moved = new Map(Array.from(rows, (row, to) => [begin + row, begin + to]));
  for (const [to, at] of kept.entries()) {
    visual[old + to] = moved.get(visual[old + at] as number) as number;
    tokens[old + to] = tokens[old + at] as number;
  }
  visual.length = old + kept.length;
  tokens.length = old + kept.length;
  layer.length = begin + rows.length;
}
