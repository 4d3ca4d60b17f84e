// The images of a turn: decode, tower, prune, projector. Leaves rows for the decoder. Knows no conversation.

import { SparseVilaError } from '../errors';
import type { ImageInput } from '../image/decode';
import type { EncodedImage, RowModel } from '../models/model';
import { float32, floats, int32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Matrix, SparsityMethod, TowerView } from '../sparsity/method';
import { checkMerged } from './selection';
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
    for (const input of inputs) {
      const pixels = await timed(times, 'image', () => model.prepareImage(input, context.signal));
      encoded.push(await timed(times, 'tower', () => model.encodeImage(pixels, { ...method.tower, breathe })));
    }
    const selections =
      inputs.length === 0
        ? []
        : await timed(times, 'retrieve', () => method.prune?.(encoded.map((image) => towerView(model, method, image))));
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
    salience: (i = 0) => declared(image.salience, i, 'salience'),
    keys: (i = 0) => declared(image.keys, i, 'keys'),
    features: () => matrix(features),
    projected: () => {
      const rows = model.project(features);
      try {
        return matrix(rows);
      } finally {
        rows.dispose();
      }
    },
  };
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
  if (rows !== undefined) {
    const merged = float32(rows, [kept.length, width]);
    if (merges === 'projected') return merged;
    const projected = model.project(merged);
    merged.dispose();
    return projected;
  }
  if (kept.length === tokens) return model.project(features);
  const gathered = gatherRows(features, kept);
  const projected = model.project(gathered);
  gathered.dispose();
  return projected;
}

/** Rows of a tensor [n, width]. */
export function gatherRows(x: Tensor, rows: Int32Array): Tensor {
  const { tf } = start();
  const indices = int32(rows);
  const gathered = tf.gather(x, indices as Parameters<typeof tf.gather>[1]);
  indices.dispose();
  return gathered;
}
