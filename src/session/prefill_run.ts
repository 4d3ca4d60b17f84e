// Rows of a prompt through the decoder: in chunks, and in stages between which a method may drop visual rows. Results: the hidden states of the
// last rows, and the question's relevance for every visual row in every layer.

import type { Segment } from '../models/segments';
import type { Position } from '../ops/rope';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { blockEnds, blocksOf } from './blocks';
import { chunks } from './chunks';
import type { CacheLayer, Conversation } from './conversation';
import type { DecoderRows } from './decoder_rows';
import { dropStages, flips, keptAfter, type Stage, scoredRows } from './drop';
import { lookAhead } from './look_ahead';
import type { PrefillContext } from './prefill';
import { gatherRows } from './tensor_rows';

/** State of a prefill. Row indices count all of its rows. */
export interface Run {
  readonly rows: DecoderRows;
  /** First row of the question, and first of its rows that count for the relevance. */
  readonly question: number;
  readonly window: number;
  /** Whether a row is visual. */
  readonly isVisual: Uint8Array;
  /** The block of rows that attend each other, by its number, or -1; absent: none do. */
  readonly blocks: Int32Array | undefined;
  /** Number of items of the conversation before the question: where states are saved. */
  readonly anchor: number;
  /** Rows that are still kept, ascending; and per layer the rows that it wrote to the cache. */
  kept: Int32Array;
  readonly written: Int32Array[];
  /** Per layer, f32 [visual rows in the cache]. */
  readonly relevance: Float32Array[];
}

/** What is added to some rows after the first layers; undefined where nothing is. The caller disposes of it. */
function addedTo({ rows, isVisual }: Run, kept: Int32Array): Tensor[] | undefined {
  const isText = kept.every((row) => isVisual[row] === 0);
  return isText ? undefined : rows.added.map((added) => gatherRows(added, kept));
}

/** @param words number of the last rows that are the question's */
export function startRun({ conversation, method, model }: PrefillContext, rows: DecoderRows, words: number): Run {
  const t = rows.positions.length;
  const isVisual = new Uint8Array(t);
  for (const row of rows.visual) isVisual[row] = 1;
  const needsRelevance = method.retrieve !== undefined && (rows.visual.length > 0 || conversation.places.length > 0);
  return {
    rows,
    question: t - words,
    window: needsRelevance ? t - Math.min(words, method.retrieve?.window ?? words) : t,
    isVisual,
    blocks: blocksOf(rows, model.decoder.config),
    anchor: conversation.items.length + rows.items.length - words,
    kept: Int32Array.from({ length: t }, (_, row) => row),
    written: [],
    relevance: [],
  };
}

/** Runs the rows before the question through all layers. */
export async function runOpening(context: PrefillContext, run: Run): Promise<undefined> {
  const { layers } = context.model.decoder.config;
  run.kept = run.kept.slice(0, run.question);
  for (let layer = 0; layer < layers; layer++) run.written[layer] = run.kept;
  if (run.question === 0) return;
  const x = start().tf.slice(run.rows.x, [0, 0], [run.question, run.rows.x.shape[1] as number]);
  try {
    const { y } = await runStage(context, { ...run, window: run.question }, x, { from: 0, to: layers, scored: [] });
    y.dispose();
  } finally {
    x.dispose();
  }
}

/** Runs rows through all layers, stage by stage; returns the hidden states of the last rows, at least one. The caller disposes of them. */
export async function runLayers(context: PrefillContext, run: Run): Promise<Tensor> {
  const { model, method } = context;
  const scored = scoredRows(method, run.rows, run.question);
  let x = run.rows.x.clone();
  try {
    for (const stage of dropStages(method, scored, model.decoder.config)) {
      const { y, scores: own } = await runStage(context, run, x, stage);
      x.dispose();
      x = y;
      if (stage.drop === undefined) continue;
      const scores = stage.looksAhead ? await lookAhead(context, run, x, stage.to) : own;
      const after = keptAfter(method, stage.drop, { ...run, x, scores });
      x.dispose();
      x = after.x;
      run.kept = after.kept;
    }
    return x;
  } catch (error) {
    x.dispose();
    throw error;
  }
}

/** Runs the kept rows through the layers of a stage. Returns their hidden states; after the last layer only those of the last chunk. */
async function runStage(
  { conversation, model, pace }: PrefillContext,
  run: Run,
  x: Tensor,
  stage: Stage,
): Promise<{ y: Tensor; scores: Float32Array }> {
  const { tf } = start();
  const { rows, kept } = run;
  const { from, to, scored } = stage;
  const { scores, onColumns } = columnSums(conversation, run, stage);
  const t = (run.kept.at(-1) ?? -1) + 1;
  const gone = t - kept.length;
  const isWhole = model.decoder.config.bidirectional === 'prompt';
  const cuts = [run.question, run.window, ...flips(scored)].map((row) => row - gone);
  const ends = run.blocks && blockEnds(kept, run.blocks);
  const outputs: Tensor[] = [];
  try {
    for (const { begin, end } of chunks(kept.length, cuts, ends)) {
      const isAll = end - begin === kept.length;
      const part = isAll ? x.clone() : tf.slice(x, [begin, 0], [end - begin, x.shape[1] as number]);
      const positions = Array.from(kept.subarray(begin, end), (row) => rows.positions[row] as Position);
      const added = from < rows.added.length ? addedTo(run, kept.subarray(begin, end)) : undefined;
      const rated = isWhole ? ratedRows(run, stage) : undefined;
      const segment = {
        ...{ cache: conversation.cache, positions, added, rated },
        onColumns: rated === undefined ? onColumns(begin + gone, end - begin) : onColumns(t - rated, rated),
        ends: ends?.slice(begin, end).map((row) => row - begin),
      };
      try {
        outputs.push(await model.decoder.forward(part, [segment], { layers: { from, to }, pace }));
      } finally {
        for (const tensor of [part, ...(added ?? [])]) tensor.dispose();
      }
      if (run.question < rows.positions.length && end + gone === run.question && conversation.cache.hasStates)
        conversation.cache.save(run.anchor, { from, to });
      if (to === model.decoder.config.layers && outputs.length > 1) outputs.shift()?.dispose();
    }
    return { y: outputs.length === 1 ? (outputs[0] as Tensor).clone() : tf.concat(outputs), scores };
  } finally {
    for (const output of outputs) output.dispose();
  }
}

/**
 * Where a prompt is one chunk, the number of its last rows whose attention counts: those from the first scored one on, or those that count for
 * the relevance.
 */
function ratedRows({ rows, window }: Run, { scored: [first = window] }: Stage): number {
  return rows.positions.length - first;
}

/** Sums attention columns over a stage: the relevance over the window's rows, per layer; the scores over the scored rows, for the turn's visual rows. */
function columnSums(conversation: Conversation, { rows, kept, isVisual, question, window, ...run }: Run, stage: Stage) {
  const t = rows.positions.length;
  const own = Array.from(kept.keys()).filter((i) => isVisual[kept[i] as number] === 1);
  const scores = new Float32Array(own.length);
  for (let layer = stage.from; layer < stage.to; layer++) {
    run.written[layer] = kept;
    // Rows of an opening alone have no relevance.
    const visual = question < t ? (conversation.layers[layer] as CacheLayer).visual.length + own.length : 0;
    run.relevance[layer] = new Float32Array(visual);
  }
  const add = (sums: Float32Array, share: number, values: (i: number) => number): void => {
    for (let i = 0; i < sums.length; i++) sums[i] = (sums[i] as number) + values(i) * share;
  };
  /** Returns the function that takes the columns of n rows starting at `row` of the turn; undefined if they do not count. */
  const onColumns = (row: number, n: number): Segment['onColumns'] => {
    const isRelevant = row >= window;
    const isScored = stage.scored.includes(row);
    if (n === 0 || row < question || !(isRelevant || isScored)) return undefined;
    return (layer, columns) => {
      const { length, visual } = conversation.layers[layer] as CacheLayer;
      const ownColumn = (i: number): number => columns[length + (own[i] as number)] as number;
      if (isScored) add(scores, n / stage.scored.length, ownColumn);
      const of = (i: number): number =>
        i < visual.length ? (columns[visual[i] as number] as number) : ownColumn(i - visual.length);
      if (isRelevant) add(run.relevance[layer] as Float32Array, n / (t - window), of);
    };
  };
  return { scores, onColumns };
}
