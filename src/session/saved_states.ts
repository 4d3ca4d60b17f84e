// The states of a saved conversation, whose layers keep them in the place of rows: those of its end, and those of the points to which the next
// turn may return.

import { decodeFloats, encodeFloats } from '../checkpoint/half';
import { readBytes, type TensorEntry } from '../checkpoint/safetensors';
import type { TensorSource } from '../checkpoint/safetensors_writer';
import type { SparseVilaError } from '../errors';
import { type DecoderConfig, isStateLayer } from '../models/config';
import { readState, stateBytes, stateOf } from '../ops/delta';
import type { Conversation } from './conversation';
import { MOST_POINTS } from './saved_state';

const nameOf = (layer: number, point?: number): string =>
  point === undefined ? `states.${layer}` : `points.${point}.${layer}`;

const stateLayersOf = (config: DecoderConfig): number[] =>
  Array.from({ length: config.layers }, (_, layer) => layer).filter((layer) => isStateLayer(config, layer));

/** The last points that have a state of every layer. Marks of the session are not saved, and neither are points that only they need. */
export function wholePoints({ cache, items }: Conversation, config: DecoderConfig): number[] {
  const layers = stateLayersOf(config);
  const isWhole = (point: number): boolean =>
    point <= items.length && layers.every((layer) => cache.stateAt(layer, point) !== undefined);
  return cache.points.filter(isWhole).slice(-MOST_POINTS);
}

/** The states of all layers, now and at some points, f32 [stateBytes / 4] each. */
export function stateSources(
  { cache, layers }: Conversation,
  config: DecoderConfig,
  points: readonly number[],
): TensorSource[] {
  const { delta } = config;
  if (delta === undefined) return [];
  const byteLength = stateBytes(delta);
  return [undefined, ...points].flatMap((point) =>
    stateLayersOf(config).flatMap((layer) => {
      const state = cache.stateAt(layer, point);
      if (state === undefined || layers[layer]?.length === 0) return [];
      const bytes = (): Uint8Array => encodeFloats(readState(state), 'F32');
      return [{ name: nameOf(layer, point), dtype: 'F32', shape: [byteLength / 4], byteLength, bytes }];
    }),
  );
}

/** Puts the states of a layer, now and at the points, into the cache. @throws `invalid` */
export function restoreStates(
  { cache }: Conversation,
  { delta }: DecoderConfig,
  { layer, points, entries }: { layer: number; points: readonly number[]; entries: ReadonlyMap<string, TensorEntry> },
  invalid: (why: string) => SparseVilaError,
): void {
  const numbers = delta === undefined ? 0 : stateBytes(delta) / 4;
  for (const point of [undefined, ...points]) {
    const entry = entries.get(nameOf(layer, point));
    if (entry?.dtype !== 'F32' || String(entry.shape) !== String([numbers]))
      throw invalid(`found no state of ${numbers} numbers for layer ${layer}`);
    const values = decodeFloats(readBytes(entry), 'F32');
    if (!values.every(Number.isFinite)) throw invalid(`found a state that is not finite in layer ${layer}`);
    cache.putState(layer, stateOf(values), point);
  }
}
