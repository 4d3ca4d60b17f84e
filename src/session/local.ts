// The rows before a question where each frame attends all text and the last few frames alone: one frame after another, in time proportional to the
// length of a film. What a row attends depends on the frames before it and on no other split, and frames that are no longer attended can leave the cache.
// Source: ReKV, arXiv 2503.00540, section 3.1 (sliding-window attention).

import { attendsAll } from '../models/config';
import type { LayerView } from '../models/segments';
import type { Position } from '../ops/rope';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { blockEnds } from './blocks';
import { chunks } from './chunks';
import { append, type CacheLayer, type Conversation, type VisualToken } from './conversation';
import type { DecoderRows } from './decoder_rows';
import { type Frame, framesOf, indexFrames } from './frames';
import type { PrefillContext } from './prefill';
import type { Run } from './prefill_run';
import { gatherRows } from './tensor_rows';
import { attendedRows, viewIn } from './view';

/** The number of frames that rows before a question attend; undefined: all. Not where all of a prompt attends to itself. */
export function localFramesOf({
  method: { retrieve },
  model,
}: Pick<PrefillContext, 'method' | 'model'>): number | undefined {
  const isWhole = model.decoder.config.bidirectional === 'prompt';
  return retrieve?.frames === undefined || isWhole ? undefined : retrieve.localFrames;
}

/** Runs the rows before the question through all layers, and adds them and their places to the conversation. */
export async function runLocally(context: PrefillContext, run: Run): Promise<void> {
  const { conversation } = context;
  const { rows, question } = run;
  const localFrames = localFramesOf(context) ?? 0;
  const opening = openingOf(run, conversation);
  const frames = framesOf(conversation);
  for (const { begin, end } of framePieces(run, opening)) {
    const from = frames.at(-1)?.first ?? 0;
    // A frame of several pieces attends the local ones before it, as in one piece.
    const local = frames.slice(-localFrames - Number(continues(opening, conversation)));
    await runPiece(context, opening, { begin, end, local });
    addRows(conversation, opening, begin, end);
    frames.pop();
    append(frames, framesOf(conversation, from));
    indexFrames(context, frames.slice(-1 - (end - begin)));
  }
  run.kept = run.kept.slice(0, question);
  // Where a question follows, its point is saved, to which a conversation returns.
  if (question < rows.positions.length && question > 0 && conversation.cache.hasStates)
    conversation.cache.save(run.anchor);
}

/** Rows of a turn before its question. */
export interface OpeningRows extends Pick<Run, 'rows' | 'isVisual'> {
  /** For each row, the number of rows that it attends, if some attend rows behind them. */
  readonly ends: Int32Array | undefined;
  /** Number of visual tokens of the conversation before them. */
  readonly shown: number;
}

export function openingOf(run: Run, { places }: Conversation): OpeningRows {
  const { kept, question, blocks } = run;
  return { ...run, ends: blocks && blockEnds(kept.slice(0, question), blocks), shown: places.length };
}

/** The pieces of an opening: none has rows of two frames. */
export function framePieces({ rows, question }: Run, { ends }: OpeningRows): { begin: number; end: number }[] {
  return question === 0 ? [] : chunks(question, borders(rows, question), ends);
}

/** Where frames begin and end. */
function borders({ visual, places }: DecoderRows, question: number): number[] {
  const cuts: number[] = [];
  for (const [i, row] of visual.entries()) {
    const [own, last] = [places[i], places[i - 1]];
    const isSame = own?.medium === last?.medium && own?.grid === last?.grid && own?.t === last?.t;
    if (!isSame) cuts.push((visual[i - 1] ?? -1) + 1, row);
  }
  return [...cuts, (visual.at(-1) ?? -1) + 1, question];
}

/** Whether the next visual row belongs to the last frame of the conversation. */
function continues({ rows, shown }: OpeningRows, { places }: Conversation): boolean {
  const [own, last] = [rows.places[places.length - shown], places.at(-1)];
  return last !== undefined && own?.medium === last.medium && own.grid === last.grid && own.t === last.t;
}

/** The views of a piece of n rows that attends all text and these frames. The caller disposes of their rows. */
function localViews(
  { conversation, model }: PrefillContext,
  local: readonly Frame[],
  n: number,
): (LayerView | undefined)[] {
  const isFull = (layer: number): boolean => attendsAll(model.decoder.config, layer);
  const first = [...conversation.layers.keys()].find(isFull) ?? 0;
  const tokens = local.flatMap((frame) => Array.from({ length: frame.rows }, (_, i) => frame.first + i));
  // No rows were dropped, so that these layers have the same ones.
  const attended = attendedRows(conversation.layers[first] as CacheLayer, Int32Array.from(tokens));
  return conversation.layers.map((_, layer) => (isFull(layer) ? viewIn(conversation, layer, attended, n) : undefined));
}

/** Runs a piece through all layers. `local`: the frames that it attends besides all text; absent: all rows. */
export async function runPiece(
  context: PrefillContext,
  { rows, isVisual, ends }: OpeningRows,
  { begin, end, local }: { readonly begin: number; readonly end: number; readonly local?: readonly Frame[] },
): Promise<void> {
  const { conversation, model, pace } = context;
  const { tf } = start();
  const kept = Int32Array.from({ length: end - begin }, (_, i) => begin + i);
  const owned: Tensor[] = [];
  const own = <T extends Tensor>(tensor: T): T => {
    owned.push(tensor);
    return tensor;
  };
  try {
    const views = local && localViews(context, local, end - begin);
    for (const view of views ?? []) if (view !== undefined) own(view.rows);
    const x = own(tf.slice(rows.x, [begin, 0], [end - begin, rows.x.shape[1] as number]));
    const isText = kept.every((row) => isVisual[row] === 0);
    const segment = {
      cache: conversation.cache,
      positions: rows.positions.slice(begin, end) as Position[],
      views,
      added: isText ? undefined : rows.added.map((added) => own(gatherRows(added, kept))),
      ends: ends?.slice(begin, end).map((row) => row - begin),
    };
    own(await model.decoder.forward(x, [segment], { pace }));
  } finally {
    for (const tensor of owned) tensor.dispose();
  }
}

/** Adds rows begin .. end - 1, which are in the cache, and their places to the conversation. */
export function addRows(
  conversation: Conversation,
  { rows, isVisual, shown }: OpeningRows,
  begin: number,
  end: number,
): void {
  const first = conversation.places.length;
  for (const layer of conversation.layers) {
    let token = first;
    for (let row = begin; row < end; row++) {
      if (isVisual[row] === 1) {
        layer.visual.push(layer.length);
        layer.tokens.push(token++);
      }
      layer.length++;
    }
  }
  for (let i = first - shown; i < rows.visual.length && (rows.visual[i] as number) < end; i++)
    conversation.places.push(rows.places[i] as VisualToken);
}
