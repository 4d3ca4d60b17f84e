// The pictures of a calibration set as the model sees them: what its tower makes of each, and what enters the tower's first block.
// Memory: while pictures are read, the loaded model without its decoder.

import { SparseVilaError } from '../errors';
import { openPart } from '../models/assemble';
import { loadRowModel, planOf } from '../models/load';
import type { Patches, PreparedMedium } from '../models/media';
import type { EncodedMedium, RowModel } from '../models/model';
import { pacer } from '../models/pacer';
import { patchValues, pixelTables } from '../models/patches';
import { buildTower } from '../models/tower';
import { floats } from '../ops/run';
import type { OnProgress } from '../runtime/progress';
import { type CalibrationSample, withSample } from './calibration';

export interface PictureOptions {
  /** Folder of the checkpoint. */
  readonly model: string;
  /** Their pictures are calibrated on. */
  readonly samples: readonly CalibrationSample[];
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** What `see` makes of each picture, once each, with the loaded model. */
async function fromPictures<T>(
  { model: folder, samples, signal, onProgress = () => undefined }: PictureOptions,
  see: (model: RowModel, path: string) => Promise<T>,
): Promise<T[]> {
  const paths = [...new Set(samples.flatMap(({ images }) => images))];
  if (paths.length === 0) {
    throw new SparseVilaError(
      'ERR_CALIBRATION',
      'Expected pictures to calibrate the vision tower or the projector on, but the calibration set has none.',
    );
  }
  const found: T[] = [];
  const model = await loadRowModel(folder, { onProgress, ...(signal === undefined ? {} : { signal }) });
  try {
    for (const path of paths) {
      onProgress({ step: 'read pictures', done: found.length, total: paths.length, unit: 'pictures' });
      found.push(await withSample({ images: [path], turns: [] }, () => see(model, path)));
    }
    return found;
  } finally {
    model.dispose();
  }
}

/** What the model's tower makes of a picture. */
export async function encodePicture(model: RowModel, path: string, signal?: AbortSignal): Promise<EncodedMedium> {
  const [medium] = await model.prepare([{ kind: 'image', image: path }], signal);
  return model.encode(medium as PreparedMedium, { pace: pacer(signal) });
}

/**
 * The tower's features of each picture, merged as the projector takes them, f32 [tokens, width].
 * @throws SparseVilaError `ERR_CALIBRATION` (no pictures, or one that cannot be read), and what loading throws; `signal.reason`
 */
export const pictureFeatures = (options: PictureOptions): Promise<Float32Array[]> =>
  fromPictures(options, async (model, path) => {
    const encoded = await encodePicture(model, path, options.signal);
    try {
      return floats(encoded.features).slice();
    } finally {
      encoded.dispose();
    }
  });

/** Patches that attend to each other: a picture, or one of its tiles. */
export interface Segment {
  readonly patches: Patches;
  /** Its patches among those of the picture: from … to - 1. */
  readonly begin: number;
  readonly end: number;
}

/** The segments of all pictures, and what enters the first block of each: x f32 [n, e]. Throws as `pictureFeatures`. */
export async function embeddedPictures(options: PictureOptions): Promise<(Segment & { readonly x: Float32Array })[]> {
  const { model: folder, signal } = options;
  const media = await fromPictures(options, (model, path) => model.prepare([{ kind: 'image', image: path }], signal));
  const plan = planOf(folder);
  const weights = openPart(plan, 'tower', {});
  try {
    const pace = pacer(signal);
    const embedding = await buildTower({ ...plan.tower, layers: 0, depth: 0 }, weights, pace);
    const tables = pixelTables(plan.pixels);
    const states: (Segment & { readonly x: Float32Array })[] = [];
    for (const { layout, canvases } of media.flat()) {
      const values = (begin: number, end: number) =>
        patchValues(canvases, layout.patches, { begin, end }, plan.tower, tables);
      const { features } = await embedding.run(layout.patches, values, {}, pace);
      const all = floats(features).slice();
      features.dispose();
      const { patches } = layout;
      const count = patches.segments.length - 1;
      const each = all.length / count;
      for (let s = 0; s < count; s++) {
        const [begin, end] = [patches.segments[s] as number, patches.segments[s + 1] as number];
        states.push({ x: all.slice(s * each, (s + 1) * each), patches, begin, end });
      }
    }
    return states;
  } finally {
    weights.dispose();
  }
}
