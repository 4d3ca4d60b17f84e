// One turn: encode media, prefill, retrieve, generate. A turn is a transaction: if it throws or is aborted, the conversation is as it
// was before; if the consumer stops early, the text so far stays.

import { MARKER, type MediaInput } from '../models/media';
import type { MessagePart, Turn } from '../models/transcript';
import type { Tensor } from '../runtime/tensor';
import type { TokenLogprob } from '../text/logprobs';
import { createSampler } from '../text/sampling';
import { chooser } from './choose';
import {
  append,
  commit,
  type KnownMedium,
  keepItems,
  lengthOf,
  type Point,
  pointAt,
  pointBefore,
  type Script,
  truncateTo,
} from './conversation';
import { rowsAround } from './decoder_rows';
import { type Generated, generate, type Piece } from './generate';
import { checkLength } from './long_text';
import { prepareMedia } from './media';
import { type AskOptions, type History, type Part, samplingOf } from './options';
import { retrievePermanently } from './permanent';
import { advanceOf, positionRule } from './positions';
import { type PrefillContext, prefill } from './prefill';
import { openingFrom, type TurnPrompt, turnPrompt } from './prompt';
import { type AnswerView, answerView } from './refresh';
import { checkRoom } from './room';
import { forgetPoints, savePoint } from './saved_points';
import type { PrunedMedium } from './sight';
import { timed } from './times';
import { meanOfAttending, statsOf, type TurnStats } from './turn_stats';

export interface TurnOptions extends AskOptions {
  readonly history: History;
  /** Called after the prefill, with the number of rows of the whole prompt, and how many of them were in the cache before. */
  readonly onPrefilled?: ((rows: { readonly prompt: number; readonly cached: number }) => void) | undefined;
}

/** A question with its media, numbered in order: those of the options first, then those among its parts. */
export interface Question {
  readonly parts: readonly Part[];
  readonly media: readonly MediaInput[];
}

/** Intermediate results of a turn, freed at its end. */
interface Progress {
  /** Pruned media by their index in the conversation: this turn's, and those that a rewritten history puts into the cache again. */
  media: Map<number, PrunedMedium>;
  view: AnswerView | undefined;
  /** Scores of the first token, f32 [1, v]. */
  scores: Tensor | undefined;
  /** The point to which the conversation returns if the turn fails. */
  before: Point;
  /** The point to which it returns if the turn's text is forgotten: after its media. */
  anchor: Point;
  /** The turns including this question, and their rendered text. */
  turns: readonly Turn[];
  text: string;
  /** Rows in the cache before the prefill, and those that it added. */
  cached: number;
  promptRows: number;
  activePrefill: number;
}

/** Yields the answer in pieces; `done` receives the statistics of a complete turn. */
export async function* runTurn(
  context: PrefillContext,
  system: string | undefined,
  question: Question,
  options: TurnOptions,
  done: (stats: TurnStats) => void,
): AsyncGenerator<Piece> {
  const { conversation } = context;
  const begin = performance.now();
  const before = pointAt(conversation);
  const progress: Progress = {
    ...{ media: new Map(), view: undefined, scores: undefined, before, anchor: before },
    ...{ turns: [], text: '', cached: 0, promptRows: 0, activePrefill: 0 },
  };
  let failed = true;
  let answerText = '';
  const logprobs: TokenLogprob[] | undefined = options.logprobs === undefined ? undefined : [];
  const record = (): void => {
    const assistant: Turn = { role: 'assistant', parts: [answerText] };
    const { pending } = conversation.script;
    conversation.script = {
      turns: [...progress.turns, assistant],
      open: [],
      text: progress.text + answerText,
      pending,
    };
  };
  try {
    await prepare(context, system, question, progress);
    const prompt = progress.cached + progress.promptRows;
    options.onPrefilled?.({ prompt, cached: progress.cached });
    const pieces = answer(context, progress, options);
    // If the consumer leaves the loop early, only `finally` runs, which keeps the text so far.
    try {
      for (let next = await pieces.next(); ; next = await pieces.next()) {
        if (next.done === true) {
          const ms = performance.now() - begin;
          done({ ...statsOf(context, progress, question.media.length, next.value, ms), logprobs });
          break;
        }
        answerText += next.value.text;
        if (logprobs !== undefined) append(logprobs, next.value.tokens);
        failed = false;
        yield next.value;
        failed = true;
      }
    } finally {
      await pieces.return(undefined as never);
    }
    failed = false;
  } finally {
    progress.view?.dispose();
    progress.scores?.dispose();
    if (failed) truncateTo(conversation, progress.before);
    else {
      if (options.history === 'forget') truncateTo(conversation, progress.anchor);
      else record();
      // The template may rewrite this turn's end as history: the next prompt then begins at the question.
      forgetPoints(conversation, conversation.items.length);
      if (conversation.script !== progress.before.script) commit(conversation);
    }
  }
}

/** The conversation with the question appended; its media are numbered from `first` on. */
export function turnsWith(
  { turns, open }: Script,
  system: string | undefined,
  { parts, media }: Question,
  first: number,
): Turn[] {
  let next = first + media.length - parts.filter((part) => typeof part !== 'string').length;
  const given = media.slice(0, next - first).map(({ kind }, i) => ({ medium: first + i, kind }));
  const own = parts.map((part): MessagePart => (typeof part === 'string' ? part : { medium: next++, kind: part.kind }));
  const opening: Turn[] = turns.length > 0 || system === undefined ? [] : [{ role: 'system', parts: [system] }];
  return [...opening, ...turns, { role: 'user', parts: [...open, ...given, ...own] }];
}

/** Everything up to the scores of the first token. */
async function prepare(
  context: PrefillContext,
  system: string | undefined,
  question: Question,
  progress: Progress,
): Promise<void> {
  const { conversation, method, model, times } = context;
  const { config } = model.decoder;
  context.signal?.throwIfAborted();
  const first = conversation.media.length;
  const turns = turnsWith(conversation.script, system, question, first);
  for (const part of question.parts)
    if (typeof part === 'string') await checkLength(conversation, part, model.tokenizer, context.pace);
  const layoutText = (medium: number): string => conversation.media[medium]?.prepared.layout.text ?? MARKER;
  const draft = turnPrompt({ model, conversation, layoutText }, turns);
  // Checked before any picture is decoded: the text alone must fit.
  const words = draft.opening.reduce((sum, part) => sum + ('medium' in part ? 0 : part.length), draft.question.length);
  const kept = pointBefore(conversation, draft.common);
  checkRoom(conversation, words, words, question.media.length > 0 ? 'at least' : '', kept);
  await context.pace();
  const prepared = await prepareMedia(context, question.media);
  append(
    conversation.media,
    prepared.map((medium) => ({ prepared: medium, first })),
  );
  const isDraft = prepared.every(({ layout }) => layout.text === MARKER);
  const whole = isDraft ? draft : turnPrompt({ model, conversation, layoutText }, turns);
  if (whole.common < conversation.items.length) {
    keepItems(conversation, whole.common);
    // The media of this turn are in the conversation already.
    progress.before = { ...pointAt(conversation), media: progress.before.media };
    progress.anchor = progress.before;
  }
  checkVisualRoom(context, whole);
  const start = pointAt(conversation);
  const known = await context.memory?.begin(whole);
  const prompt = known === undefined ? whole : { ...whole, opening: openingFrom(whole.opening, known) };
  savePoint(conversation);
  forgetPoints(conversation, conversation.items.length);
  const before = pointAt(conversation);
  progress.turns = turns;
  progress.text = prompt.text;
  const { scores, media, ...found } = await prefill(context, prompt, () => {
    // The cache holds a history that was opened or rewritten, so the next turn compares it id by id.
    if (conversation.script.text === '' && prompt.opening.length > 0) progress.anchor = pointAt(conversation);
    if (question.media.length === 0) return;
    const open = (turns.at(-1)?.parts ?? []).filter((part) => typeof part !== 'string');
    conversation.script = { turns: turns.slice(0, -1), open, text: prompt.opened, pending: [] };
    progress.anchor = pointAt(conversation);
  });
  progress.media = media;
  progress.scores = scores;
  progress.cached = before.length;
  progress.promptRows = lengthOf(conversation) - before.length;
  progress.activePrefill = meanOfAttending(
    config,
    conversation.layers.map(({ visual }) => visual.length),
  );
  progress.anchor = await timed(times, 'retrieve', () =>
    retrievePermanently(method, conversation, found.relevance, { before: start, anchor: progress.anchor, config }),
  );
  progress.view = await timed(times, 'retrieve', () => answerView(context, found));
}

/** Refuses, before the tower runs, media that cannot fit however much is pruned: pruned tokens keep their positions unless they are renumbered. */
function checkVisualRoom({ conversation, method, model }: PrefillContext, { opening, question }: TurnPrompt): void {
  const runs = opening.flatMap((part) => {
    if (!('medium' in part)) return [];
    const { layout } = (conversation.media[part.medium] as KnownMedium).prepared;
    const run = layout.runs[part.run];
    return run === undefined ? [] : [{ layout, run }];
  });
  const around = runs.reduce((sum, { run }) => sum + rowsAround(model, run), 0);
  const texts = opening.reduce((sum, part) => sum + ('medium' in part ? 0 : part.length), question.length + around);
  const all = runs.reduce((sum, { run }) => sum + run.to - run.from, texts);
  const rule = positionRule(model, method);
  const positions = runs.reduce((sum, { layout, run }) => sum + advanceOf(layout, run, rule), texts);
  if (method.prune === undefined && method.encode === undefined) checkRoom(conversation, all, positions);
  else checkRoom(conversation, texts, rule.isCompact ? texts : positions, 'at least');
}

async function* answer(
  { model, conversation, pace }: PrefillContext,
  { view, scores }: Progress,
  options: AskOptions,
): AsyncGenerator<Piece, Generated> {
  const sampler = createSampler(samplingOf(options), model.sampling);
  const { maxTokens = model.maxNewTokens, stop = [], logprobs, logitBias, format } = options;
  const verify = options.verify && {};
  const choices = chooser(model, sampler, { logprobs, logitBias, format });
  try {
    const how = { maxTokens, stop, pace, verify };
    return yield* generate(model, conversation, view as AnswerView, choices, scores as Tensor, how);
  } finally {
    choices.dispose();
  }
}
