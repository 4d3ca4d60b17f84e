// Decoded and drawn pictures, kept by the content of their files, so that a picture that comes again is not decoded again.

import { createHash, type Hash } from 'node:crypto';
import type { ImageInput } from '../image/decode';
import { sourceOf } from '../image/input';
import type { MediaInput, PreparedMedium } from '../models/media';
import type { VisionLanguageModel } from '../models/model';
import { lru } from './lru';

export interface Pictures {
  readonly model: VisionLanguageModel;
  readonly bytes: number;
  readonly size: number;
  evict(): number;
}

/** `model` with a memory of at most `budget` bytes of prepared media. */
export function withPictures(model: VisionLanguageModel, budget: number): Pictures {
  const known = lru<PreparedMedium>(budget);
  const prepare: VisionLanguageModel['prepare'] = async (media, signal, share) => {
    if (budget === 0) return model.prepare(media, signal, share);
    const kinds = media.map(({ kind }) => kind);
    const keys = media.map((medium) => keyOf(medium, kinds, share));
    const found = keys.map((key) => (key === undefined ? undefined : known.get(key)));
    if (found.every((medium) => medium !== undefined)) return found;
    // All of them, because their layouts depend on how many there are.
    const prepared = await model.prepare(media, signal, share);
    for (const [i, medium] of prepared.entries()) {
      const key = keys[i];
      if (key !== undefined) known.set(key, medium, sizeOf(medium));
    }
    return prepared;
  };
  return {
    model: { ...model, prepare },
    get bytes() {
      return known.bytes;
    },
    get size() {
      return known.size;
    },
    evict: known.evict,
  };
}

const contents = new WeakMap<PreparedMedium, string>();

/** A hash of everything about a medium that its rows depend on: pixels, or the film and the times of its frames; layout and positions. */
export function contentOf(medium: PreparedMedium): string {
  const known = contents.get(medium);
  if (known !== undefined) return known;
  const { kind, grids, runs, text, planeStep, patches, merge, pool } = medium.layout;
  const hash = createHash('sha256').update(JSON.stringify([kind, grids, runs, text, planeStep]));
  for (const numbers of [patches.corners, patches.segments, merge.from, pool?.from])
    if (numbers !== undefined) hash.update(numbers);
  const { film, made, canvases } = medium;
  if (film !== undefined) hash.update(JSON.stringify([film.content(), made.size]));
  for (const { data } of canvases) hash.update(data);
  const content = hash.digest('base64');
  contents.set(medium, content);
  return content;
}

function sizeOf({ canvases, film }: PreparedMedium): number {
  return canvases.reduce((sum, { data }) => sum + data.byteLength, film?.bytes ?? 0);
}

/** A hash of the medium's files, of the share to which it is resized, and of the kinds of all media of its message; undefined for files that are given by name or can be read only once. */
function keyOf(medium: MediaInput, kinds: readonly string[], share = 1): string | undefined {
  const hash = createHash('sha256').update(JSON.stringify([medium.kind, kinds, share]));
  if (medium.kind === 'image') return addImage(hash, medium.image) ? hash.digest('base64') : undefined;
  const { video } = medium;
  if ('file' in video) {
    const { file, onProgress: _, ...segment } = video;
    hash.update(JSON.stringify(segment));
    return addImage(hash, file) ? hash.digest('base64') : undefined;
  }
  const { frames, ...rest } = video;
  if (!Array.isArray(frames)) return undefined;
  hash.update(JSON.stringify(rest));
  const isKnown = (frames as readonly ImageInput[]).every((frame) => addImage(hash, frame));
  return isKnown ? hash.digest('base64') : undefined;
}

/** Adds the content of an image to a hash; returns whether its content is known. Errors are left to the decoder. */
function addImage(hash: Hash, image: ImageInput): boolean {
  try {
    const source = sourceOf(image);
    if (source.kind === 'pixels') {
      const { data, width, height, channels } = source.pixels;
      hash.update(JSON.stringify([width, height, channels])).update(data);
      return true;
    }
    const bytes = source.kind === 'bytes' ? source.bytes : undefined;
    const text = source.kind === 'text' && source.text.startsWith('data:') ? source.text : undefined;
    const content = bytes ?? text;
    if (content === undefined) return false;
    hash.update(`${content.length} `).update(content);
    return true;
  } catch {
    return false;
  }
}
