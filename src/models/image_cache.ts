// A model that caches encoded images by their pixels, so that sessions about the same picture share the tower's work. Knows no sessions.

import { createHash } from 'node:crypto';
import type { PreparedMedium } from './media';
import type { EncodedMedium, VisionLanguageModel } from './model';
import type { TowerTaps } from './tower';

interface Entry {
  readonly image: EncodedMedium;
  readonly bytes: number;
}

/**
 * `model` with a cache of at most `bytes` of encoded images, from which the least recently used are evicted first. A cached image is used if
 * its prepared pixels, the requested layers and the computed tokens are equal, and gives the same bits. Disposing of the model frees the cache.
 */
export function withImageCache(model: VisionLanguageModel, bytes: number): VisionLanguageModel {
  // A Map keeps the order of insertion: the first entry is the least recently used.
  const entries = new Map<string, Entry>();
  let held = 0;
  const forget = (key: string, { image, bytes: size }: Entry): void => {
    entries.delete(key);
    held -= size;
    image.dispose();
  };
  return {
    ...model,
    async encode(medium, options) {
      const { pace: _, tokens, memory, ...taps } = options;
      // What it gives depends on the frames before.
      if (memory !== undefined) return model.encode(medium, options);
      const key = keyOf(medium, taps, tokens);
      const known = entries.get(key);
      if (known !== undefined) {
        entries.delete(key);
        entries.set(key, known);
        // Equal pixels may have other positions, for frames of another rate.
        return { ...copy(known.image), layout: medium.layout };
      }
      const image = await model.encode(medium, options);
      const size = sizeOf(image);
      // Another session may have encoded the same picture in the meantime.
      if (size > bytes || entries.has(key)) return image;
      entries.set(key, { image, bytes: size });
      held += size;
      const given = copy(image);
      for (const [oldest, entry] of entries) {
        if (held <= bytes) break;
        forget(oldest, entry);
      }
      return given;
    },
    dispose() {
      for (const [key, entry] of entries) forget(key, entry);
      model.dispose();
    },
  };
}

function keyOf({ layout, canvases }: PreparedMedium, taps: TowerTaps, tokens: Int32Array | undefined): string {
  const hash = createHash('sha256').update(
    JSON.stringify([taps, tokens?.length, layout.kind, layout.grids, layout.runs]),
  );
  if (tokens !== undefined) hash.update(tokens);
  for (const { data } of canvases) hash.update(data);
  return hash.digest('base64');
}

/** A copy of the encoded image that shares its memory; each copy is disposed of separately. */
function copy(image: EncodedMedium): EncodedMedium {
  const features = image.features.clone();
  return { ...image, features, dispose: () => features.dispose() };
}

function sizeOf({ features, salience, keys }: EncodedMedium): number {
  const taps = [...salience, ...keys.map(({ data }) => data)];
  const numbers = taps.reduce((sum, { length }) => sum + length, features.size);
  return numbers * Float32Array.BYTES_PER_ELEMENT;
}
