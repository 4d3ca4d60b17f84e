// The pictures of a calibration set in the model: the tower's output for each, and the input of the tower's first block.
// Memory: the loaded model without its decoder, while pictures are read.

import { SparseVilaError } from '../errors';
import { assembleRows } from '../models/assemble';
import { stateOf } from '../models/deepstack';
import { planOf } from '../models/load';
import type { Patches, PreparedMedium } from '../models/media';
import type { EncodedMedium, RowModel } from '../models/model';
import { pacer } from '../models/pacer';
import type { Plan } from '../models/plan';
import { selectRows } from '../models/row_maps';
import { floats } from '../ops/run';
import { type CalibrationSource, eachSample } from './calibration';

/** The results of `see` for each distinct picture, with the loaded model. */
async function fromPictures<T>(
  source: CalibrationSource,
  see: (model: RowModel, path: string) => Promise<T>,
  changed: (plan: Plan) => Plan = (plan) => plan,
): Promise<T[]> {
  const { model: folder, signal, onProgress } = source;
  const paths = [...new Set(source.samples.flatMap(({ images }) => images))];
  if (paths.length === 0) {
    throw new SparseVilaError(
      'ERR_CALIBRATION',
      'Expected pictures to calibrate the vision tower or the projector on, but the calibration set has none.',
    );
  }
  const samples = paths.map((path) => ({ images: [path], turns: [] }));
  const model = await assembleRows(changed(planOf(folder)), {
    ...(onProgress && { onProgress }),
    ...(signal && { signal }),
  });
  try {
    const reading = { step: 'read pictures', unit: 'pictures' };
    return await eachSample({ samples, onProgress }, reading, ({ images: [path = ''] }) => see(model, path));
  } finally {
    model.dispose();
  }
}

/** The output of the model's tower for a picture. */
export async function encodePicture(model: RowModel, path: string, signal?: AbortSignal): Promise<EncodedMedium> {
  const [medium] = await model.prepare([{ kind: 'image', image: path }], signal);
  return model.encode(medium as PreparedMedium, { pace: pacer(signal) });
}

async function encoded(
  model: RowModel,
  medium: PreparedMedium,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const seen = await model.encode(medium, { pace: pacer(signal) });
  const { deepstack = [], tower } = model.plan;
  const features = stateOf(seen.features, 0, 1 + deepstack.length, tower.hiddenSize);
  try {
    return floats(features).slice();
  } finally {
    features.dispose();
    seen.dispose();
  }
}

/**
 * The tower's features of each picture, merged as the projector takes them, f32 [tokens, width].
 * @throws SparseVilaError `ERR_CALIBRATION` (no pictures, or one that cannot be read), and errors of loading; `signal.reason`
 */
export const pictureFeatures = (options: CalibrationSource): Promise<Float32Array[]> =>
  fromPictures(options, async (model, path) => {
    const [medium] = await model.prepare([{ kind: 'image', image: path }], options.signal);
    return encoded(model, medium as PreparedMedium, options.signal);
  });

/** Patches that attend to each other: a picture, or one of its tiles. */
export interface Segment {
  readonly patches: Patches;
  /** Its patches among those of the picture: from … to - 1. */
  readonly begin: number;
  readonly end: number;
}

/** The segments of all pictures, and what enters the first block of each: x f32 [n, e]. Throws as `pictureFeatures`. */
export async function embeddedPictures(
  options: CalibrationSource,
): Promise<(Segment & { readonly x: Float32Array })[]> {
  // A tower that gives its first hidden state, and a layout that merges none of its rows.
  const first = (plan: Plan): Plan => ({ ...plan, tower: { ...plan.tower, depth: 0, deepstack: [] }, deepstack: [] });
  const see = async (model: RowModel, path: string) => {
    const [medium] = (await model.prepare([{ kind: 'image', image: path }], options.signal)) as [PreparedMedium];
    const { pool: _, ...layout } = medium.layout;
    const { patches } = layout;
    const count = patches.segments.length - 1;
    const rows = (patches.segments[count] as number) + count * Number(model.plan.tower.classToken);
    const merge = selectRows(Array.from({ length: rows }, (_row, i) => i));
    const all = await encoded(model, { ...medium, layout: { ...layout, merge } }, options.signal);
    const each = all.length / count;
    return Array.from({ length: count }, (_segment, s) => ({
      ...{ x: all.slice(s * each, (s + 1) * each), patches },
      ...{ begin: patches.segments[s] as number, end: patches.segments[s + 1] as number },
    }));
  };
  return (await fromPictures(options, see, first)).flat();
}
