// From a turn's prompt to rows in the cache: tower, prune, projector, then the decoder in chunks. Leaves the question's
// relevance of every visual row in every layer, and the logits that follow the prompt.

import type { Tensor } from '@tensorflow/tfjs-core';
import type { ImageInput } from '../image/decode';
import type { EncodedImage, VisionLanguageModel } from '../models/model';
import { int32 } from '../ops/run';
import { start } from '../runtime/start';
import type { SparsityMethod } from '../sparsity/method';
import { type Conversation, checkRoom } from './conversation';
import type { Opening, TurnPrompt } from './prompt';
import { checkSelection } from './selection';

/** Rows of one op call: bounds scratch memory and the time between breaths. */
const CHUNK = 512;

/** Rows for the decoder, with the positions they stand at. */
interface Rows {
  readonly x: Tensor;
  readonly positions: number[];
  /** Indices of visual rows among them. */
  readonly visual: number[];
  readonly ids: number[];
  /** Positions taken, those of pruned tokens included. */
  readonly span: number;
}

/** An image's surviving tokens. */
export interface PrunedImage {
  readonly grid: { readonly rows: number; readonly cols: number };
  readonly tokens: number;
  readonly kept: Int32Array;
  /** f32 [tokens], where the method asked for it. */
  readonly salience: Float32Array | undefined;
  /** f32 [kept, d] */
  readonly rows: Tensor;
}

export interface StageTimes {
  image: number;
  tower: number;
  project: number;
  prefill: number;
  retrieve: number;
}

/** Runs `work` and adds its milliseconds to a stage. */
export async function timed<T>(times: StageTimes, stage: keyof StageTimes, work: () => Promise<T> | T): Promise<T> {
  const begin = performance.now();
  try {
    return await work();
  } finally {
    times[stage] += performance.now() - begin;
  }
}

export interface PrefillContext {
  readonly model: VisionLanguageModel;
  readonly method: SparsityMethod;
  readonly conversation: Conversation;
  readonly times: StageTimes;
  readonly signal: AbortSignal | undefined;
  readonly breathe: () => Promise<void>;
}

/** Decodes, encodes, prunes and projects images. The caller disposes of the rows. */
export async function seeImages(context: PrefillContext, inputs: readonly ImageInput[]): Promise<PrunedImage[]> {
  const { model, method, times, breathe } = context;
  const encoded: EncodedImage[] = [];
  const seen: PrunedImage[] = [];
  try {
    for (const input of inputs) {
      const pixels = await timed(times, 'image', () => model.prepareImage(input, context.signal));
      const salienceLayer = method.prune && (method.salienceLayer ?? -1);
      encoded.push(await timed(times, 'tower', () => model.encodeImage(pixels, { salienceLayer, breathe })));
    }
    const kept = await timed(times, 'retrieve', () =>
      method.prune?.(
        encoded.map(({ tokens, grid, salience }) => ({ tokens, grid, salience: salience ?? new Float32Array(tokens) })),
      ),
    );
    for (const [i, { grid, tokens, features, salience }] of encoded.entries()) {
      const indices =
        method.prune === undefined
          ? Int32Array.from({ length: tokens }, (_, token) => token)
          : checkSelection(method.name, `prune, for image ${i},`, kept?.[i], tokens);
      const rows = await timed(times, 'project', () => projectKept(model, features, indices, tokens));
      seen.push({ grid, tokens, kept: indices, salience, rows });
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

function projectKept(model: VisionLanguageModel, features: Tensor, kept: Int32Array, tokens: number): Tensor {
  if (kept.length === tokens) return model.project(features);
  const { tf } = start();
  const indices = int32(kept);
  const gathered = tf.gather(features, indices as Parameters<typeof tf.gather>[1]);
  const rows = model.project(gathered);
  indices.dispose();
  gathered.dispose();
  return rows;
}

/** Text and images of an opening, and the question, as rows. The caller disposes of x. */
export function openingRows(context: PrefillContext, opening: Opening, images: readonly PrunedImage[]): Rows {
  const { model, method } = context;
  const pieces: Tensor[] = [];
  const positions: number[] = [];
  const visual: number[] = [];
  const ids: number[] = [];
  let next = context.conversation.nextPosition;
  let image = 0;
  const addText = (text: readonly number[]): void => {
    if (text.length === 0) return;
    pieces.push(model.decoder.embed(text));
    for (const id of text) {
      positions.push(next++);
      ids.push(id);
    }
  };
  for (const part of opening) {
    if (part !== null) {
      addText(part);
      continue;
    }
    const { rows, kept, tokens } = images[image++] as PrunedImage;
    pieces.push(rows.clone());
    const compact = method.positions === 'compact';
    for (const [i, token] of kept.entries()) {
      visual.push(positions.length);
      positions.push(next + (compact ? i : token));
    }
    next += compact ? kept.length : tokens;
    if (model.imageMarker.id < model.decoder.config.vocabSize) ids.push(model.imageMarker.id);
    addText(model.endOfImage);
  }
  const { tf } = start();
  const x = pieces.length === 1 ? (pieces[0] as Tensor).clone() : tf.concat(pieces);
  for (const piece of pieces) piece.dispose();
  return { x, positions, visual, ids, span: next - context.conversation.nextPosition };
}

/** Appends the opening and the question to the cache; returns the next token's logits and the question's relevance per layer. */
export async function prefill(
  context: PrefillContext,
  prompt: TurnPrompt,
  images: readonly PrunedImage[],
  afterOpening: () => void,
): Promise<{ logits: Float32Array; relevance: Float32Array[] }> {
  const { conversation: c, method } = context;
  const kept = images.reduce((sum, image) => sum + image.kept.length, 0);
  const texts = prompt.opening.reduce(
    (sum, part) => sum + (part?.length ?? context.model.endOfImage.length),
    prompt.question.length,
  );
  const pruned =
    method.positions === 'compact' ? 0 : images.reduce((sum, image) => sum + image.tokens - image.kept.length, 0);
  checkRoom(c, kept + texts, kept + texts + pruned);
  if (prompt.opening.some((part) => part === null || part.length > 0)) {
    (await appendRows(context, openingRows(context, prompt.opening, images), undefined)).dispose();
  }
  afterOpening();
  const relevance = c.cache.map(() => new Float32Array(c.visual.length));
  const wanted = method.retrieve !== undefined && c.visual.length > 0;
  const question = openingRows(context, [prompt.question], []);
  const last = await appendRows(context, question, wanted ? relevance : undefined);
  const logits = context.model.decoder.logits(last);
  last.dispose();
  return { logits, relevance };
}

/** Runs rows through the decoder in chunks; disposes of them; returns the last chunk's hidden state. */
async function appendRows(
  context: PrefillContext,
  rows: Rows,
  relevance: readonly Float32Array[] | undefined,
): Promise<Tensor> {
  const { conversation: c, model, breathe } = context;
  const { tf } = start();
  const [t, d] = rows.x.shape as [number, number];
  const visualBefore = [...c.visual];
  let hidden: Tensor | undefined;
  try {
    for (let at = 0; at < t; at += CHUNK) {
      const n = Math.min(CHUNK, t - at);
      const x = n === t ? rows.x.clone() : tf.slice(rows.x, [at, 0], [n, d]);
      hidden?.dispose();
      const onColumns =
        relevance &&
        ((layer: number, columns: Float32Array): void => {
          const sums = relevance[layer] as Float32Array;
          for (const [i, row] of visualBefore.entries())
            sums[i] = (sums[i] as number) + ((columns[row] as number) * n) / t;
        });
      try {
        hidden = await model.decoder.forward(x, rows.positions.slice(at, at + n), c.cache, {
          length: c.length,
          onColumns,
          breathe,
        });
      } finally {
        x.dispose();
      }
      for (const row of rows.visual) if (row >= at && row < at + n) c.visual.push(c.length + row - at);
      c.length += n;
    }
  } finally {
    rows.x.dispose();
  }
  c.nextPosition += rows.span;
  for (const id of rows.ids) c.ids.push(id);
  if (hidden === undefined) throw new Error('a turn without rows');
  return hidden;
}
