// The images of a turn: decode, tower, prune, projector. Leaves rows for the decoder. Knows no conversation.

import { SparseVilaError } from '../errors';
import type { ImageInput } from '../image/decode';
import type { PixelValues } from '../image/preprocess';
import type { EncodedImage, RowModel } from '../models/model';
import { float32, floats, int32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Matrix, SparsityMethod, TowerView } from '../sparsity/method';
import { checkLists, checkMerged } from './selection';
import { type StageTimes, timed } from './times';

/** An image's surviving tokens. */
export interface PrunedImage {
  readonly grid: { readonly rows: number; readonly cols: number };
  readonly tokens: number;
  readonly kept: Int32Array;
  /** f32 [tokens], of the first layer that the method asked for. */
  readonly salience: Float32Array | undefined;
  /** f32 [kept, d] */
  readonly rows: Tensor;
}

export interface ImageContext {
  readonly model: RowModel;
  readonly method: SparsityMethod;
  readonly times: StageTimes;
  readonly signal: AbortSignal | undefined;
  readonly breathe: () => Promise<void>;
}

/** Decodes, encodes, prunes and projects images. The caller disposes of the rows. */
export async function seeImages(context: ImageContext, inputs: readonly ImageInput[]): Promise<PrunedImage[]> {
  const { model, method, times, breathe } = context;
  const encoded: EncodedImage[] = [];
  const seen: PrunedImage[] = [];
  try {
    // All are decoded before any is encoded: a picture that cannot be read costs no work.
    const prepared: PixelValues[] = [];
    for (const input of inputs)
      prepared.push(await timed(times, 'image', () => model.prepareImage(input, context.signal)));
    for (const pixels of prepared)
      encoded.push(await timed(times, 'tower', () => model.encodeImage(pixels, { ...method.tower, breathe })));
    const views = encoded.map((image) => towerView(model, method, image));
    const selections =
      inputs.length === 0 || method.prune === undefined
        ? undefined
        : await timed(times, 'retrieve', () => checkLists(method.name, method.prune?.(views), inputs.length));
    for (const [i, image] of encoded.entries()) {
      const { grid, tokens } = image;
      const width =
        method.merges === 'projected' ? model.decoder.config.hiddenSize : (image.features.shape[1] as number);
      const selection =
        selections === undefined
          ? { kept: Int32Array.from({ length: tokens }, (_, token) => token) }
          : checkMerged(method.name, `prune, for image ${i},`, selections[i], { n: tokens, width });
      const rows = await timed(times, 'project', () => project(model, method, image, selection, width));
      seen.push({ grid, tokens, kept: selection.kept, salience: image.salience[0], rows });
      await breathe();
    }
    return seen;
  } catch (error) {
    for (const { rows } of seen) rows.dispose();
    throw error;
  } finally {
    for (const image of encoded) image.dispose();
  }
}

/** What `prune` sees of an image, computed when it looks. */
function towerView(model: RowModel, method: SparsityMethod, image: EncodedImage): TowerView {
  const { tokens, grid, features } = image;
  const declared = <T>(values: readonly T[], i: number, what: string): T => {
    const value = values[i];
    if (value !== undefined) return value;
    throw new SparseVilaError(
      'ERR_METHOD',
      `Expected method ${JSON.stringify(method.name)} to name ${i + 1} layers in tower.${what}, which its prune reads, ` +
        `received ${values.length}.`,
    );
  };
  return {
    tokens,
    grid,
    // Copies: the numbers may be shared with other sessions, and become part of the statistics.
    salience: (i = 0) => declared(image.salience, i, 'salience').slice(),
    keys: (i = 0) => {
      const { data, width } = declared(image.keys, i, 'keys');
      return { data: data.slice(), width };
    },
    features: () => matrix(features),
    projected: () => matrixOf(() => model.project(features)),
  };
}

/** The numbers of a tensor [n, width] that `make` makes, which is freed. */
export function matrixOf(make: () => Tensor): Matrix {
  const tensor = start().tf.tidy(make);
  try {
    return matrix(tensor);
  } finally {
    tensor.dispose();
  }
}

/** A copy of the numbers of a tensor [n, width]. */
export function matrix(tensor: Tensor): Matrix {
  return { data: floats(tensor).slice(), width: tensor.shape[1] as number };
}

/** Rows for the decoder: the kept features projected, or what the method merged them into. */
function project(
  model: RowModel,
  { merges }: SparsityMethod,
  { features, tokens }: EncodedImage,
  { kept, rows }: { kept: Int32Array; rows?: Float32Array },
  width: number,
): Tensor {
  // In a scope, which frees what is made on the way, also when an op fails.
  return start().tf.tidy(() => {
    if (rows !== undefined) {
      const merged = float32(rows, [kept.length, width]);
      return merges === 'projected' ? merged : model.project(merged);
    }
    return model.project(kept.length === tokens ? features : gatherRows(features, kept));
  });
}

/** Rows of a tensor [n, width]. */
export function gatherRows(x: Tensor, rows: Int32Array): Tensor {
  const { tf } = start();
  return tf.tidy(() => tf.gather(x, int32(rows)));
}
