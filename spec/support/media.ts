// One picture as a model prepares and encodes it, for specs that look at single stages.

import type { ImageInput } from '../../src/image/decode';
import type { PreparedMedium } from '../../src/models/media';
import type { EncodedMedium, RowModel } from '../../src/models/model';
import { pixelTables } from '../../src/models/patches';
import type { TowerTaps } from '../../src/models/tower';

export const pause = async (): Promise<void> => undefined;

/** A picture laid out and drawn, as the only one of its turn. */
export async function prepared(model: RowModel, image: ImageInput): Promise<PreparedMedium> {
  const [medium] = await model.prepare([{ kind: 'image', image }]);
  if (medium === undefined) throw new Error('a medium');
  return medium;
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

export async function encoded(model: RowModel, image: ImageInput, taps: TowerTaps = {}): Promise<EncodedMedium> {
  return model.encode(await prepared(model, image), { ...taps, pace: pause });
}
