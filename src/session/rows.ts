// A turn's text and images as rows for the decoder: embeddings, positions, and which rows are visual tokens.

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
  const pieces: Tensor[] = [];
  const positions: number[] = [];
  const visual: number[] = [];
  const places: Place[] = [];
  const ids: number[] = [];
  let next = conversation.nextPosition;
  let image = 0;
  const addText = (text: readonly number[]): void => {
    if (text.length === 0) return;
    pieces.push(model.decoder.embed(text));
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
    pieces.push(rows.clone());
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
  const x = pieces.length === 1 ? (pieces[0] as Tensor).clone() : tf.concat(pieces);
  for (const piece of pieces) piece.dispose();
  return { x, positions, visual, places, ids, span: next - conversation.nextPosition };
}
