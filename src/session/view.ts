// The view of a turn: per layer, the cache rows that its decoding attends, namely all text rows, the retrieved visual rows, and the
// contiguous tail that grows with the answer. A layer with a sliding window attends all of it, and one with a state nothing. Nothing is copied, and without the view all rows are attended again. A permanent retrieval
// makes no view: the rows that it leaves out are removed from the cache.

import { attendsAll, type DecoderConfig } from '../models/config';
import type { AttendedRows } from '../models/kv_cache';
import type { LayerView } from '../models/segments';
import { int32 } from '../ops/run';
import type { SparsityMethod } from '../sparsity/method';
import { type CacheLayer, type Conversation, placesOf, type VisualToken } from './conversation';
import { checkSelection } from './selection';

/** What a prefill found out about the visual rows. */
export interface Relevance {
  /** Per layer, of its visual rows or of its candidates. */
  readonly relevance: readonly Float32Array[];
  /** Per layer, the visual rows that the question attended, as indices among the layer's visual rows; absent: all of them. */
  readonly candidates?: readonly Int32Array[] | undefined;
}

export interface TurnView {
  readonly layers: readonly (LayerView | undefined)[] | undefined;
  /** Per layer, the attended visual tokens of the conversation; undefined if every layer attends all of them. */
  readonly retrieved: readonly Int32Array[] | undefined;
  dispose(): void;
}

/** Retrieves in every layer that attends everything. Without `retrieve`, with a permanent one, or without visual rows, everything in the cache is attended. */
export function turnView(
  { name, retrieve }: SparsityMethod,
  conversation: Conversation,
  { relevance, candidates }: Relevance,
  config: DecoderConfig,
): TurnView {
  if (retrieve === undefined || retrieve.permanent || conversation.places.length === 0) {
    const isWhole = conversation.layers.every(({ tokens }) => tokens.length === conversation.places.length);
    const retrieved = isWhole ? undefined : conversation.layers.map(({ tokens }) => Int32Array.from(tokens));
    return { layers: undefined, retrieved, dispose: () => undefined };
  }
  const selections = relevance.map((scores, layer) => {
    const places = placesOf(conversation, layer);
    if (!attendsAll(config, layer)) return Int32Array.from(places.keys());
    const own = candidates?.[layer];
    const seen = own === undefined ? places : Array.from(own, (at) => places[at] as VisualToken);
    const selection = retrieve.select(scores, layer, seen, places.length);
    const checked = checkSelection(name, 'retrieve', selection, seen.length);
    return own === undefined ? checked : checked.map((at) => own[at] as number);
  });
  const layers = selections.map((selection, i) =>
    attendsAll(config, i)
      ? viewIn(conversation, i, attendedRows(conversation.layers[i] as CacheLayer, selection))
      : undefined,
  );
  const retrieved = selections.map((selection, i) =>
    selection.map((at) => conversation.layers[i]?.tokens[at] as number),
  );
  return {
    layers,
    retrieved,
    dispose: () => {
      for (const view of layers) view?.rows.dispose();
    },
  };
}

/** All text rows, and the selected ones of the visual rows. */
export function attendedRows({ visual }: CacheLayer, selection: Int32Array): AttendedRows {
  const tail = (visual.at(-1) ?? -1) + 1;
  const attended = new Uint8Array(tail).fill(1);
  for (const row of visual) attended[row] = 0;
  for (const i of selection) attended[visual[i] as number] = 1;
  const rows: number[] = [];
  attended.forEach((yes, row) => {
    if (yes === 1) rows.push(row);
  });
  return { rows, tail };
}

/**
 * The view of cache rows, which are brought into the layer's tensor. The caller disposes of its rows.
 * @param room rows that will be added to the tail
 */
export function viewIn({ cache }: Conversation, layer: number, attended: AttendedRows, room?: number): LayerView {
  const { rows, tail } = cache.locate(layer, attended, room);
  return { rows: int32(rows), tail };
}
