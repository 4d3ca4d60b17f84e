// One turn: see the images, prefill, retrieve, answer. A transaction: if it throws or is aborted, the conversation is as it
// was before; if its consumer leaves early, the text so far stays.

import { MARKER, type MediaInput } from '../models/media';
import type { Tensor } from '../runtime/tensor';
import { createSampler } from '../text/sampling';
import type { TurnPieces } from '../text/template';
import { type Conversation, checkRoom, lengthOf, type Point, pointAt, rewind } from './conversation';
import { type FinishReason, type Generated, generate } from './generate';
import { checkLength } from './long_text';
import { type PrunedMedium, seeMedia } from './media';
import { type AskOptions, type History, mediaOf, samplingOf } from './options';
import { retrievePermanently } from './permanent';
import { type PrefillContext, prefill } from './prefill';
import { turnPrompt } from './prompt';
import { type StageTimes, timed } from './times';
import { type TurnView, turnView } from './view';

export interface TurnStats {
  readonly tokens: {
    /** Visual tokens of this turn's media. */
    readonly visualSeen: number;
    /** Visual tokens that entered the decoder, of all turns so far. */
    readonly visualKept: number;
    /** Visual rows that this turn's decoding attends in each layer; where layers differ, their mean, rounded. */
    readonly visualRetrieved: number;
    /** Visual rows that the layers hold after the prefill, and that decoding attends: means over the layers. */
    readonly activePrefill: number;
    readonly activeDecode: number;
    /** Rows that this turn's prompt put into the cache. */
    readonly prompt: number;
    readonly generated: number;
  };
  /** Milliseconds. `retrieve` holds the selections of prune and retrieve; `perToken` is the mean decoder step. */
  readonly ms: StageTimes & { readonly perToken: number; readonly total: number };
  readonly finish: FinishReason;
  /** What was kept of each image and video of this turn. */
  readonly media: readonly Omit<PrunedMedium, 'rows'>[];
  /** Per layer, which of the `visualKept` visual tokens were attended, as indices among them; undefined: all in every layer. */
  readonly retrieved: readonly Int32Array[] | undefined;
}

export interface TurnOptions extends AskOptions {
  readonly history: History;
}

/** What a turn has made so far, freed at its end. */
interface Progress {
  media: PrunedMedium[];
  view: TurnView | undefined;
  /** Of the first token, f32 [1, v]. */
  scores: Tensor | undefined;
  /** Where the conversation goes back to when the turn's text is forgotten: after its media. */
  anchor: Point;
  promptRows: number;
  activePrefill: number;
}

/** Yields the answer's text; `done` receives the statistics of a complete turn. */
export async function* runTurn(
  context: PrefillContext,
  pieces: TurnPieces,
  question: string,
  options: TurnOptions,
  done: (stats: TurnStats) => void,
): AsyncGenerator<string> {
  const { conversation: c } = context;
  const begin = performance.now();
  const before = pointAt(c);
  const progress: Progress = {
    media: [],
    view: undefined,
    scores: undefined,
    anchor: before,
    promptRows: 0,
    activePrefill: 0,
  };
  let failed = false;
  try {
    await prepare(context, pieces, question, mediaOf(options), progress);
    const result = yield* answer(context, progress, options);
    done(summary(context, progress, result, performance.now() - begin));
  } catch (error) {
    failed = true;
    throw error;
  } finally {
    progress.view?.dispose();
    progress.scores?.dispose();
    for (const { rows } of progress.media) rows.dispose();
    if (failed) undo(c, before);
    else if (options.history === 'forget') rewind(c, progress.anchor);
  }
}

/** The conversation as it was before a turn that failed; without any row it needs no cache. */
function undo(c: Conversation, before: Point): void {
  rewind(c, before);
  if (before.length === 0) c.freeCache();
}

/** Everything before the first token. */
async function prepare(
  context: PrefillContext,
  pieces: TurnPieces,
  question: string,
  inputs: readonly MediaInput[],
  progress: Progress,
): Promise<void> {
  const { conversation: c, method, model, times } = context;
  context.signal?.throwIfAborted();
  const before = progress.anchor;
  await checkLength(c, pieces.first.before + question, model.tokenizer, context.breathe);
  const draft = turnPrompt(
    model,
    pieces,
    c,
    question,
    inputs.map(() => MARKER),
  );
  // Before any picture is decoded: the texts alone must fit.
  const words = draft.opening.reduce((sum, part) => sum + (part?.length ?? 0), draft.question.length);
  checkRoom(c, words, words, inputs.length > 0 ? 'at least' : '');
  await context.breathe();
  progress.media = await seeMedia(context, inputs);
  const texts = progress.media.map(({ layout }) => layout.text);
  const prompt = texts.every((text) => text === MARKER) ? draft : turnPrompt(model, pieces, c, question, texts);
  const { scores, relevance } = await timed(times, 'prefill', () =>
    prefill(context, prompt, progress.media, () => {
      if (inputs.length === 0) return;
      c.phase = { at: 'open', opened: prompt.opened, markers: prompt.markers, first: prompt.first };
      progress.anchor = pointAt(c);
    }),
  );
  progress.scores = scores;
  progress.promptRows = lengthOf(c) - before.length;
  progress.activePrefill = mean(c.layers.map(({ visual }) => visual.length));
  progress.anchor = await timed(times, 'retrieve', () =>
    retrievePermanently(model.decoder, method, c, relevance, { before, anchor: progress.anchor }),
  );
  progress.view = await timed(times, 'retrieve', () => turnView(method, c, relevance));
}

function answer(
  { model, conversation, breathe }: PrefillContext,
  { view, scores }: Progress,
  options: AskOptions,
): AsyncGenerator<string, Generated> {
  const sampler = createSampler(samplingOf(options), model.sampling);
  const { maxTokens = model.maxNewTokens, stop = [] } = options;
  return generate(model, conversation, view as TurnView, sampler, scores as Tensor, { maxTokens, stop, breathe });
}

function summary(
  { conversation: c, times }: PrefillContext,
  { media, view, promptRows, activePrefill }: Progress,
  { tokens, steps, ms, finish }: Generated,
  total: number,
): TurnStats {
  const activeDecode = mean(view?.retrieved?.map(({ length }) => length) ?? [c.places.length]);
  return {
    tokens: {
      visualSeen: media.reduce((sum, medium) => sum + medium.tokens, 0),
      visualKept: c.places.length,
      visualRetrieved: Math.round(activeDecode),
      activePrefill,
      activeDecode,
      prompt: promptRows,
      generated: tokens,
    },
    ms: { ...times, perToken: steps === 0 ? 0 : ms / steps, total },
    finish,
    media: media.map(({ rows: _, ...kept }) => kept),
    retrieved: view?.retrieved,
  };
}

function mean(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0) / counts.length;
}
