// Rows of a turn for the decoder: embeddings of text and media, their positions, and which rows are visual.

import { SparseVilaError } from '../errors';
import { type Grid, planeTokens, type Run } from '../models/media';
import type { RowModel } from '../models/model';
import type { Position } from '../ops/rope';
import { int32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { SparsityMethod, VisualPlace } from '../sparsity/method';
import { append, type Conversation, type Item, type VisualToken } from './conversation';
import { firstTokens, type PrunedMedium } from './media';
import { placeRun, positionRule } from './positions';
import type { Opening, RunPlace } from './prompt';

/** Rows that enter the decoder, and their positions. */
export interface DecoderRows {
  /** f32 [t, d] */
  readonly x: Tensor;
  /** f32 [t, d] each: the k-th is added to what leaves decoder layer k; 0 for text. Empty without deepstack or visual rows. */
  readonly added: readonly Tensor[];
  readonly positions: Position[];
  /** Indices of the visual rows, ascending, and the place of each in its medium. */
  readonly visual: number[];
  readonly places: VisualToken[];
  readonly ids: number[];
  /** What the rows stand for, in their order. */
  readonly items: Item[];
  /** Number of positions that the rows take, those of pruned tokens included. */
  readonly advance: number;
}

export interface DecoderRowsContext {
  readonly model: RowModel;
  readonly method: SparsityMethod;
  readonly conversation: Conversation;
}

/**
 * Makes the rows that follow the conversation's: text ids are embedded, runs of media take their kept rows. The caller disposes of x and what is
 * added.
 * @param media the media whose runs are among the parts, by their index in the conversation
 */
export function decoderRows(
  context: DecoderRowsContext,
  parts: Opening,
  media: ReadonlyMap<number, PrunedMedium>,
): DecoderRows {
  const { model, method, conversation } = context;
  const made: (() => Tensor)[] = [];
  const positions: Position[] = [];
  const visual: number[] = [];
  const places: VisualToken[] = [];
  const ids: number[] = [];
  const items: Item[] = [];
  const rule = positionRule(model, method);
  let next = conversation.nextPosition;
  const addText = (text: readonly number[]): void => {
    if (text.length === 0) return;
    made.push(() => model.decoder.embed(text));
    for (const id of text) {
      positions.push(next++);
      ids.push(id);
    }
  };
  const addRun = (place: RunPlace): void => {
    const { medium } = place;
    const { pruned, run } = runOf(media, place);
    addText(idsAround(model, run.before));
    const { begin, end } = keptIn(pruned, run);
    made.push(() => sliceOf(pruned.rows, begin, end));
    const kept = pruned.kept.subarray(begin, end);
    const { positions: placed, advance } = placeRun(pruned.layout, run, kept, next, rule);
    for (const [i, token] of kept.entries()) {
      visual.push(positions.length);
      positions.push(placed[i] as Position);
      places.push({ medium, ...placeOf(pruned, run, token), position: placed[i] as Position });
    }
    next += advance;
    items.push({ ...place, kept: end - begin, around: rowsAround(model, run), advance });
    if (model.marker.id < model.decoder.config.vocabSize) ids.push(model.marker.id);
    addText(idsAround(model, run.after));
    const { newlines = 0 } = run;
    if (newlines > 0) made.push(() => newlineRows(model, newlines));
    for (let i = 0; i < newlines; i++) positions.push(next++);
  };
  for (const part of parts) {
    if ('medium' in part) addRun(part);
    else {
      addText(part);
      append(items, part);
    }
  }
  const { tf } = start();
  // `tidy` also frees the pieces if making one of them fails.
  const [x, ...added] = tf.tidy(() => {
    const pieces = made.map((make) => make());
    const d = model.decoder.config.hiddenSize;
    const count = pieces.reduce((most, { shape }) => Math.max(most, (shape[1] as number) / d), 1);
    return Array.from({ length: count }, (_, i) => joinColumns(pieces, i * d, d));
  }) as [Tensor, ...Tensor[]];
  return { x, added, positions, visual, places, ids, items, advance: next - conversation.nextPosition };
}

/** Columns begin … begin + d - 1 of pieces [n, d] or wider, end to end; 0 where a piece does not have them. */
function joinColumns(pieces: readonly Tensor[], begin: number, d: number): Tensor {
  const { tf } = start();
  const parts = pieces.map((piece): Tensor => {
    const [n, width] = piece.shape as [number, number];
    if (begin >= width) return tf.zeros([n, d]);
    return width === d ? piece : tf.slice(piece, [0, begin], [n, d]);
  });
  return parts.length === 1 ? (parts[0] as Tensor) : tf.concat(parts);
}

/** The ids of a text before or after a run. It is tokenized separately, and so starts as the tokenizer starts every text. */
export function idsAround({ tokenizer }: RowModel, text: string | undefined): readonly number[] {
  return text === undefined ? [] : [...tokenizer.prefixIds, ...tokenizer.encode(text)];
}

/** The number of rows around a run that are never pruned. */
export function rowsAround(model: RowModel, { before, after, newlines = 0 }: Run): number {
  return idsAround(model, before).length + idsAround(model, after).length + newlines;
}

/** The learned newline row, f32 [count, d]. */
function newlineRows({ newline, decoder }: RowModel, count: number): Tensor {
  const { tf } = start();
  return tf.gather(tf.reshape(newline as Tensor, [1, decoder.config.hiddenSize]), int32(new Array(count).fill(0)));
}

/** The range of the kept tokens that belongs to a run. */
export function keptIn({ kept }: PrunedMedium, { from, to }: Run): { begin: number; end: number } {
  let begin = 0;
  while (begin < kept.length && (kept[begin] as number) < from) begin++;
  let end = begin;
  while (end < kept.length && (kept[end] as number) < to) end++;
  return { begin, end };
}

function placeOf({ layout }: PrunedMedium, run: Run, token: number): Omit<VisualPlace, 'medium'> {
  const grid = layout.grids[run.grid] as Grid;
  const own = token - (firstTokens(layout)[run.grid] as number);
  const inPlane = own % planeTokens(grid);
  return {
    grid: run.grid,
    t: Math.floor(own / planeTokens(grid)),
    row: Math.floor(inPlane / grid.w),
    col: inPlane % grid.w,
  };
}

function sliceOf(rows: Tensor, begin: number, end: number): Tensor {
  const [n, d] = rows.shape as [number, number];
  return begin === 0 && end === n ? rows.clone() : start().tf.slice(rows, [begin, 0], [end - begin, d]);
}

/** The run that a part of the prompt refers to. */
function runOf(
  media: ReadonlyMap<number, PrunedMedium>,
  { medium, run }: RunPlace,
): { pruned: PrunedMedium; run: Run } {
  const pruned = media.get(medium);
  const found = pruned?.layout.runs[run];
  if (pruned !== undefined && found !== undefined) return { pruned, run: found };
  throw new SparseVilaError(
    'ERR_TEMPLATE_INVALID',
    `Expected a run of visual tokens for every place in the prompt, found none for run ${run} of medium ${medium}.`,
  );
}
