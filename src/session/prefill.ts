// The prefill of a turn: the rows of its opening as they come, then those of the question. Results: the scores of the next token, and the
// question's relevance for every visual row in every layer.

import type { VisionLanguageModel } from '../models/model';
import type { Tensor } from '../runtime/tensor';
import { boundOf, runBounded, shrinkFilm } from './bounded';
import { CHUNK } from './chunks';
import { append, type Conversation, lengthOf } from './conversation';
import { addOpening, type DecoderRows, type RowBuilder, rowBuilder, rowsAround } from './decoder_rows';
import type { MediaContext } from './encoded_media';
import { runOverFrames, scoresFrames } from './frames';
import { localFramesOf, runLocally } from './local';
import { advanceOf, positionRule } from './positions';
import { type Run, runLayers, runOpening, startRun } from './prefill_run';
import type { TurnPrompt } from './prompt';
import { checkRoom } from './room';
import { savePoint } from './saved_points';
import { type PrunedMedium, type Sight, sightOf } from './sight';
import { timed } from './times';
import type { Relevance } from './view';

export interface PrefillContext extends MediaContext {
  readonly model: VisionLanguageModel;
  readonly conversation: Conversation;
  /** Takes part in a turn where rows are remembered beyond the conversation. */
  readonly memory?: TurnMemory | undefined;
}

interface Prefilled extends Relevance {
  /** Scores of the next token, f32 [1, v]. */
  readonly scores: Tensor;
}

export interface TurnMemory {
  /**
   * Called before the media are encoded. May give an empty conversation the rows that a prompt begins with, and returns how many items of the
   * prompt's opening these are.
   */
  begin(prompt: TurnPrompt): Promise<number>;
  /** Called when the rows of the opening are in the conversation, before those of the question are counted. */
  opened(): void;
}

/**
 * Appends the opening and the question to the cache. The rows of the opening are prefilled as they come, a chunk at a time, except where a method
 * drops rows between layers or all of a prompt attends to itself: these need all rows at once. Returns the scores of the next token, f32 [1, v],
 * per layer the question's relevance, and what was seen of the media.
 */
export async function prefill(
  context: PrefillContext,
  prompt: TurnPrompt,
  afterOpening: () => void,
): Promise<Prefilled & { readonly media: Map<number, PrunedMedium> }> {
  const { method, model, times } = context;
  const isWhole = method.drop !== undefined || model.decoder.config.bidirectional === 'prompt';
  const sight = sightFor(context, prompt);
  const builder = rowBuilder(context);
  const checkSoFar = roomFor(context, prompt, sight);
  try {
    await addOpening(builder, prompt.opening, sight, async () => {
      if (isWhole || builder.waiting < CHUNK) return;
      checkSoFar(builder, 'at least');
      await timed(times, 'prefill', () => prefillOpening(context, builder.take()));
    });
    checkSoFar(builder, '');
    if (boundOf(context) !== undefined) {
      // The film shrinks before its question is read.
      if (builder.waiting > 0) await timed(times, 'prefill', () => prefillOpening(context, builder.take()));
      shrinkFilm(context);
    }
    builder.text(prompt.question);
    const rows = builder.take();
    const done = await timed(times, 'prefill', () => prefillQuestion(context, rows, prompt.question, afterOpening));
    return { ...done, media: sight.media() };
  } finally {
    builder.dispose();
    await sight.close();
  }
}

/** The media whose runs a prompt puts into the cache, together with the media of their messages. */
function sightFor(context: PrefillContext, { opening, question }: TurnPrompt): Sight {
  const { media } = context.conversation;
  const wanted = new Set(opening.flatMap((part) => ('medium' in part ? [media[part.medium]?.first] : [])));
  const groups = [...wanted].map(
    (first) => new Map([...media.entries()].flatMap(([i, one]) => (one.first === first ? [[i, one.prepared]] : []))),
  );
  return sightOf(context, groups, question);
}

/** Returns a check that the rows of a prompt have room: its texts, and the visual rows that were kept so far. */
function roomFor({ conversation, method, model }: PrefillContext, { opening, question }: TurnPrompt, sight: Sight) {
  const before = { length: lengthOf(conversation), nextPosition: conversation.nextPosition };
  const rule = positionRule(model, method);
  let [texts, advance] = [question.length, 0];
  for (const part of opening) {
    if (!('medium' in part)) {
      texts += part.length;
      continue;
    }
    const layout = sight.layoutOf(part.medium);
    const run = layout?.runs[part.run];
    if (layout === undefined || run === undefined) continue;
    texts += rowsAround(model, run);
    advance += advanceOf(layout, run, rule);
  }
  return (rows: RowBuilder, known: string): void =>
    checkRoom(conversation, texts + rows.visual, texts + (rule.isCompact ? rows.advance : advance), known, before);
}

/** Prefills rows of the opening, and adds them to the conversation. Disposes of their tensors. */
async function prefillOpening(context: PrefillContext, rows: DecoderRows): Promise<void> {
  const { conversation } = context;
  try {
    const run = startRun(context, rows, 0);
    if (boundOf(context) !== undefined) await runBounded(context, run);
    else if (localFramesOf(context) !== undefined) await runLocally(context, run);
    else {
      (await runLayers(context, run)).dispose();
      addVisible(conversation, run, rows.positions.length);
    }
    appendItems(conversation, rows, rows.advance);
  } finally {
    for (const tensor of [rows.x, ...rows.added]) tensor.dispose();
  }
}

/** Prefills the last rows of the opening with the question. Disposes of their tensors. */
async function prefillQuestion(
  context: PrefillContext,
  rows: DecoderRows,
  question: readonly number[],
  afterOpening: () => void,
): Promise<Prefilled> {
  const { conversation, method, model } = context;
  try {
    const run = startRun(context, rows, question.length);
    if (run.question === 0) savePoint(conversation);
    const isFramed = scoresFrames(method, model, conversation.places.length + rows.visual.length > 0);
    // A question over chosen frames is run when the rows of its media are in the conversation.
    const isLocal = isFramed && localFramesOf(context) !== undefined;
    const known = isFramed ? undefined : scored(model, run, await runLayers(context, run));
    if (isLocal) await runLocally(context, run);
    else if (isFramed) await runOpening(context, run);
    if (!isLocal) addVisible(conversation, run, run.question);
    const [ids, items] = [rows.ids.slice(0, -question.length), rows.items.slice(0, -question.length)];
    appendItems(conversation, { ids, items }, rows.advance - question.length);
    context.memory?.opened();
    afterOpening();
    const { scores, ...found } = known ?? (await runOverFrames(context, rows, run.question));
    const asked = Int32Array.from(question.keys(), (i) => run.question + i);
    if (known === undefined) for (const layer of conversation.layers.keys()) run.written[layer] = asked;
    appendRows(conversation, run, { from: run.question, to: rows.positions.length });
    append(conversation.ids, question);
    append(conversation.items, question);
    conversation.nextPosition += question.length;
    return { scores, ...found };
  } finally {
    for (const tensor of [rows.x, ...rows.added]) tensor.dispose();
  }
}

/** Adds the rows before `to`, and the places of the visual ones. */
function addVisible(conversation: Conversation, run: Run, to: number): void {
  appendRows(conversation, run, { from: 0, to });
  append(conversation.places, run.rows.places);
}

type Items = Pick<DecoderRows, 'ids' | 'items'>;

function appendItems(conversation: Conversation, { ids, items }: Items, advance: number): void {
  append(conversation.items, items);
  append(conversation.ids, ids);
  conversation.nextPosition += advance;
}

/** The scores after the last row; disposes of x. */
function scored({ decoder }: VisionLanguageModel, { relevance }: Run, x: Tensor): Prefilled {
  try {
    return { scores: decoder.scores(x, [(x.shape[0] as number) - 1]), relevance };
  } finally {
    x.dispose();
  }
}

/** Adds rows from .. to - 1 of a prefill, which are in the cache already, to the conversation. */
function appendRows(
  conversation: Conversation,
  { rows, isVisual, written }: Run,
  { from, to }: { from: number; to: number },
): void {
  const firstToken = conversation.places.length;
  const tokenOf = new Map(rows.visual.filter((row) => row >= from && row < to).map((row, i) => [row, firstToken + i]));
  for (const [i, layer] of conversation.layers.entries()) {
    for (const row of written[i] ?? []) {
      if (row < from || row >= to) continue;
      if (isVisual[row] === 1) {
        layer.visual.push(layer.length);
        layer.tokens.push(tokenOf.get(row) as number);
      }
      layer.length++;
    }
  }
}
