// A turn's text and images as rows for the decoder: embeddings, positions, and which rows are visual tokens.

import { SparseVilaError } from '../errors';
import type { RowModel } from '../models/model';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Place, SparsityMethod } from '../sparsity/method';
import type { Conversation } from './conversation';
import type { PrunedImage } from './images';
import type { Opening } from './prompt';

/** Rows for the decoder, with the positions they stand at. */
export interface Rows {
  /** f32 [t, d] */
  readonly x: Tensor;
  readonly positions: number[];
  /** Indices of visual rows among them, ascending, and where each lies in its image. */
  readonly visual: number[];
  readonly places: Place[];
  readonly ids: number[];
  /** Positions taken, those of pruned tokens included. */
  readonly span: number;
}

export interface RowsContext {
  readonly model: RowModel;
  readonly method: SparsityMethod;
  readonly conversation: Conversation;
}

/** Texts and images as rows that follow the conversation's. The caller disposes of x. */
export function rowsOf(context: RowsContext, parts: Opening, images: readonly PrunedImage[]): Rows {
  const { model, method, conversation } = context;
  checkImages(parts, images.length);
  const made: (() => Tensor)[] = [];
  const positions: number[] = [];
  const visual: number[] = [];
  const places: Place[] = [];
  const ids: number[] = [];
  let next = conversation.nextPosition;
  let image = 0;
  const addText = (text: readonly number[]): void => {
    if (text.length === 0) return;
    made.push(() => model.decoder.embed(text));
    for (const id of text) {
      positions.push(next++);
      ids.push(id);
    }
  };
  for (const part of parts) {
    if (part !== null) {
      addText(part);
      continue;
    }
    const { rows, kept, tokens, grid } = images[image] as PrunedImage;
    addText(model.startOfImage);
    made.push(() => rows.clone());
    const compact = method.positions === 'compact';
    for (const [i, token] of kept.entries()) {
      visual.push(positions.length);
      positions.push(next + (compact ? i : token));
      const row = Math.floor(token / grid.cols);
      places.push({ image: conversation.images + image, row, col: token - row * grid.cols });
    }
    next += compact ? kept.length : tokens;
    image++;
    if (model.imageMarker.id < model.decoder.config.vocabSize) ids.push(model.imageMarker.id);
    addText(model.endOfImage);
  }
  const { tf } = start();
  // In a scope, which frees the pieces, also when one cannot be made.
  const x = tf.tidy(() => {
    const pieces = made.map((make) => make());
    return pieces.length === 1 ? (pieces[0] as Tensor) : tf.concat(pieces);
  });
  return { x, positions, visual, places, ids, span: next - conversation.nextPosition };
}

/** Every image given has its place in the prompt, and every place its image. */
function checkImages(parts: Opening, given: number): void {
  const placed = parts.reduce((count, part) => count + (part === null ? 1 : 0), 0);
  if (placed === given) return;
  throw new SparseVilaError(
    'ERR_TEMPLATE_INVALID',
    `Expected the chat template to place the ${given} images of this turn, but the tokenized prompt has places for ${placed}. ` +
      'Does the template leave the image marker out, repeat it, or does the tokenizer split it?',
  );
}
