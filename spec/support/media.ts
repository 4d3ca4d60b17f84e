// One picture as a model prepares and encodes it, for specs that look at single stages.

import type { ImageInput, RgbImage } from '../../src/image/decode';
import { canvasesOf, type MediaInput, type PreparedMedium } from '../../src/models/media';
import type { EncodedMedium, RowModel } from '../../src/models/model';
import { patchValues, pixelTables } from '../../src/models/patches';
import type { TowerTaps } from '../../src/models/tower';

export const pause = async (): Promise<void> => undefined;

/** A picture laid out and drawn, as the only one of its turn. */
export async function prepared(model: RowModel, image: ImageInput): Promise<PreparedMedium> {
  const [medium] = await model.prepare([{ kind: 'image', image }]);
  if (medium === undefined) throw new Error('a medium');
  return medium;
}

/** The media of a turn with all of their canvases, those of films as well. */
export async function drawn(model: RowModel, media: readonly MediaInput[]): Promise<PreparedMedium[]> {
  const all = await model.prepare(media);
  return Promise.all(
    all.map(async (medium) => {
      const canvases: RgbImage[] = [];
      for await (const canvas of canvasesOf(medium, undefined)) canvases.push(canvas);
      return { layout: medium.layout, made: medium.made, canvases };
    }),
  );
}

/** The normalized values of its canvases, f32 [canvases, 3, height, width], as processors give them. */
export function pixelsOf({ plan }: RowModel, { canvases }: PreparedMedium): Float32Array {
  const tables = pixelTables(plan.pixels);
  return Float32Array.from(
    canvases.flatMap(({ data }) =>
      [0, 1, 2].flatMap((channel) =>
        Array.from({ length: data.length / 3 }, (_, i) => tables[channel]?.[data[3 * i + channel] ?? 0] ?? Number.NaN),
      ),
    ),
  );
}

/** The patches of a medium, block after block of its tokens in raster order, as processors order them. */
export function patchesOf({ plan }: RowModel, { layout, canvases }: PreparedMedium, tables = pixelTables(plan.pixels)) {
  const n = layout.patches.corners.length / 3;
  const values = patchValues(canvases, layout.patches, { begin: 0, end: n }, plan.tower, tables);
  const width = values.length / n;
  const ordered = new Float32Array(values.length);
  for (const [to, from] of layout.merge.from.entries())
    ordered.set(values.subarray(from * width, (from + 1) * width), to * width);
  return ordered;
}

export async function encoded(model: RowModel, image: ImageInput, taps: TowerTaps = {}): Promise<EncodedMedium> {
  return model.encode(await prepared(model, image), { ...taps, pace: pause });
}
