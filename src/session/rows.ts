// A turn's text and media as rows for the decoder: embeddings, positions, and which rows are visual tokens.

import { SparseVilaError } from '../errors';
import { type Grid, planeTokens, type Run } from '../models/media';
import type { RowModel } from '../models/model';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Place, SparsityMethod } from '../sparsity/method';
import type { Conversation } from './conversation';
import { firstTokens, type PrunedMedium } from './media';
import type { Opening } from './prompt';

/** Rows for the decoder, with the positions they stand at. */
export interface Rows {
  /** f32 [t, d] */
  readonly x: Tensor;
  readonly positions: number[];
  /** Indices of visual rows among them, ascending, and where each lies in its medium. */
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

/** Texts and media as rows that follow the conversation's. The caller disposes of x. */
export function rowsOf(context: RowsContext, parts: Opening, media: readonly PrunedMedium[]): Rows {
  const { model, method, conversation } = context;
  const runs = media.flatMap((pruned, i) => pruned.layout.runs.map((run) => ({ run, pruned, medium: i })));
  checkRuns(parts, runs.length);
  const made: (() => Tensor)[] = [];
  const positions: number[] = [];
  const visual: number[] = [];
  const places: Place[] = [];
  const ids: number[] = [];
  let next = conversation.nextPosition;
  const addText = (text: readonly number[]): void => {
    if (text.length === 0) return;
    made.push(() => model.decoder.embed(text));
    for (const id of text) {
      positions.push(next++);
      ids.push(id);
    }
  };
  const addRun = ({ run, pruned, medium }: (typeof runs)[number]): void => {
    addText(idsAround(model, run.before));
    const { begin, end } = keptIn(pruned, run);
    made.push(() => sliceOf(pruned.rows, begin, end));
    const compact = method.positions === 'compact';
    for (let i = begin; i < end; i++) {
      const token = pruned.kept[i] as number;
      visual.push(positions.length);
      positions.push(next + (compact ? i - begin : token - run.from));
      places.push({ medium: conversation.media + medium, ...placeOf(pruned, run, token) });
    }
    next += compact ? end - begin : run.to - run.from;
    if (model.marker.id < model.decoder.config.vocabSize) ids.push(model.marker.id);
    addText(idsAround(model, run.after));
  };
  let at = 0;
  for (const part of parts) {
    if (part === null) addRun(runs[at++] as (typeof runs)[number]);
    else addText(part);
  }
  const { tf } = start();
  // In a scope, which frees the pieces, also when one cannot be made.
  const x = tf.tidy(() => {
    const pieces = made.map((make) => make());
    return pieces.length === 1 ? (pieces[0] as Tensor) : tf.concat(pieces);
  });
  return { x, positions, visual, places, ids, span: next - conversation.nextPosition };
}

/** The ids of a text that stands before or after a run: tokenised by itself, and so begun as the tokenizer begins every text. */
export function idsAround({ tokenizer }: RowModel, text: string | undefined): readonly number[] {
  return text === undefined ? [] : [...tokenizer.prefixIds, ...tokenizer.encode(text)];
}

/** Which of the kept tokens belong to a run. */
function keptIn({ kept }: PrunedMedium, { from, to }: Run): { begin: number; end: number } {
  let begin = 0;
  while (begin < kept.length && (kept[begin] as number) < from) begin++;
  let end = begin;
  while (end < kept.length && (kept[end] as number) < to) end++;
  return { begin, end };
}

function placeOf({ layout }: PrunedMedium, run: Run, token: number): Omit<Place, 'medium'> {
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

/** Every run of visual rows has its place in the prompt, and every place its run. */
function checkRuns(parts: Opening, given: number): void {
  const placed = parts.reduce((count, part) => count + (part === null ? 1 : 0), 0);
  if (placed === given) return;
  throw new SparseVilaError(
    'ERR_TEMPLATE_INVALID',
    `Expected the chat template to place the ${given} runs of visual tokens of this turn, but the tokenized prompt has places for ${placed}. ` +
      'Does the template leave the image marker out, repeat it, or does the tokenizer split it?',
  );
}
