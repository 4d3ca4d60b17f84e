// The text of a conversation as token ids, and the part of it that the cache already holds. The whole conversation is rendered for every
// turn. If the text continues the cached text, only the rest is tokenized; if the template rewrites history, all of it is tokenized and the
// longest common prefix stays in the cache, or less where layers keep states, which can only return to saved points.

import { received, SparseVilaError } from '../errors';
import { MARKER } from '../models/media';
import type { RowModel } from '../models/model';
import {
  commonPrefix,
  endOfAnswer,
  type MessagePart,
  type Transcript,
  type Turn,
  transcript,
} from '../models/transcript';
import { checkEmbedded } from '../text/embedded';
import { strip } from '../text/strip';
import type { TextRange } from '../text/template';
import type { Conversation, Item } from './conversation';
import { restorable } from './saved_points';

/** A run of visual rows in a prompt. */
export interface RunPlace {
  readonly medium: number;
  /** Index among the runs of the medium. */
  readonly run: number;
}

export type Opening = readonly (readonly number[] | RunPlace)[];

export interface TurnPrompt {
  /** Number of cache items that stay. */
  readonly common: number;
  /** New ids and runs before the question; they do not count for the relevance. */
  readonly opening: Opening;
  readonly question: readonly number[];
  /** The whole text, and its beginning up to the last run of visual rows. */
  readonly text: string;
  readonly opened: string;
}

/** The input of a prompt. */
export interface PromptContext {
  readonly model: RowModel;
  readonly conversation: Pick<Conversation, 'items' | 'script' | 'cache'>;
  /** The text that replaces each medium, with one MARKER per run. */
  layoutText(medium: number): string;
}

/**
 * Makes the prompt of a turn. Text of the user and the model is plain: markup that is spelled in it (`<image>`, `<|im_end|>`) becomes
 * ordinary tokens, so that only the template can open a turn. All other ids are those of the rendered conversation.
 * @param turns the whole conversation, the question last
 * @throws SparseVilaError `ERR_QUESTION` if the question is empty, too long, or has a token that the model cannot embed;
 *   `ERR_TEMPLATE_INVALID`, `ERR_TOKENIZER…`
 */
export function turnPrompt(context: PromptContext, turns: readonly Turn[]): TurnPrompt {
  const { model, conversation, layoutText } = context;
  const { marker, tokenizer } = model;
  const { items, script } = conversation;
  checkWords(turns.at(-1)?.parts ?? []);
  checkLength(turns, model);
  const whole = transcript(model, turns, layoutText);
  const places = placesOf(turns, layoutText);
  const last = whole.text.lastIndexOf(MARKER);
  const opened = whole.text.slice(0, last + 1);
  // Where all of a prompt attends to itself, its rows depend on the question, and none of them serves another one.
  const isWhole = model.decoder.config.bidirectional === 'prompt';
  const continues = !isWhole && script.text !== '' && whole.text.startsWith(script.text);
  const from = continues ? script.text.length : 0;
  const encoded = encode(model, whole, from);
  const known = items.filter((item) => typeof item !== 'number').length;
  const found = withRuns(encoded, marker.id, continues ? places.slice(known) : places);
  const shared = continues ? items.length : restorable(conversation, commonItems(items, found));
  const common = isWhole ? 0 : shared;
  const own = continues ? [...script.pending, ...found] : found.slice(common);
  const lastRun = own.findLastIndex((item) => typeof item !== 'number');
  const closed = closedLength(context, turns, whole, { common, continues });
  const start = Math.min(Math.max(lastRun + 1, closed), own.length - 1);
  const question = own.slice(start) as number[];
  checkEmbedded(
    found.filter((item) => typeof item === 'number'),
    tokenizer,
    model.decoder.config.vocabSize,
    'the question or the system text',
    'ERR_QUESTION',
  );
  return { common, opening: grouped(own.slice(0, start)), question, text: whole.text, opened };
}

/** Ids of a text from a character on, preceded by the ids that start every prompt of the tokenizer. */
function encode({ marker, tokenizer }: RowModel, { text, plain }: Transcript, from: number): number[] {
  const rest = text.slice(from).replaceAll(MARKER, marker.text);
  const grown = marker.text.length - 1;
  const moved = (at: number): number => {
    const own = Math.max(0, at - from);
    return own + grown * (text.slice(from, from + own).split(MARKER).length - 1);
  };
  const ranges = plain.filter(({ end }) => end > from);
  const own = ranges.map(({ begin, end }): TextRange => ({ begin: moved(begin), end: moved(end) }));
  const ids = tokenizer.encode(rest, { plain: own, continues: from > 0 });
  return from === 0 && ids[0] !== tokenizer.prefixIds[0] ? [...tokenizer.prefixIds, ...ids] : ids;
}

/** The runs of all media in the order of the text. */
function placesOf(turns: readonly Turn[], layoutText: PromptContext['layoutText']): RunPlace[] {
  const media = turns.flatMap(({ parts }) => parts.flatMap((part) => (typeof part === 'string' ? [] : [part.medium])));
  return media.flatMap((medium) => {
    const runs = layoutText(medium).split(MARKER).length - 1;
    return Array.from({ length: runs }, (_, run) => ({ medium, run }));
  });
}

/** Replaces each marker id with the next run. */
function withRuns(ids: readonly number[], marker: number, places: readonly RunPlace[]): (number | RunPlace)[] {
  let next = 0;
  const items = ids.map((id) => (id === marker ? (places[next++] ?? id) : id));
  if (next === places.length && !items.includes(marker)) return items;
  throw new SparseVilaError(
    'ERR_TEMPLATE_INVALID',
    `Expected one image marker in the prompt for each of ${places.length} runs of visual tokens, found ${next}. The tokenizer does not keep the marker in one piece.`,
  );
}

/** The number of items that the cache and a prompt have in common from the start, leaving at least one item of the prompt. */
function commonItems(items: readonly Item[], found: readonly (number | RunPlace)[]): number {
  const isSame = (item: Item, other: number | RunPlace | undefined): boolean => {
    if (typeof item === 'number' || typeof other === 'number' || other === undefined) return item === other;
    return item.medium === other.medium && item.run === other.run;
  };
  let common = 0;
  while (common < Math.min(items.length, found.length - 1) && isSame(items[common] as Item, found[common])) common++;
  return common;
}

/** How many of the new ids belong to the text before the question. */
function closedLength(
  { model, conversation, layoutText }: PromptContext,
  turns: readonly Turn[],
  whole: Transcript,
  { common, continues }: { common: number; continues: boolean },
): number {
  const { script } = conversation;
  // Media whose question was forgotten end the cached text, and no answer.
  const isOpen = continues && script.open.length > 0;
  if (isOpen || turns.length < 2 || turns.at(-2)?.role !== 'assistant') return 0;
  if (continues) {
    const closing = commonPrefix(whole.text.slice(script.text.length), closingOf(model));
    return script.pending.length + model.tokenizer.encode(closing, { continues: true }).length;
  }
  const closed = transcript(model, turns.slice(0, -1), layoutText, { answers: false });
  if (!whole.text.startsWith(closed.text)) return 0;
  return Math.max(0, encode(model, closed, 0).length - common);
}

const CLOSINGS = new WeakMap<object, string>();

function closingOf(model: RowModel): string {
  const known = CLOSINGS.get(model.template) ?? endOfAnswer(model);
  CLOSINGS.set(model.template, known);
  return known;
}

function grouped(items: readonly (number | RunPlace)[]): Opening {
  const parts: (number[] | RunPlace)[] = [];
  for (const item of items) {
    const last = parts.at(-1);
    if (typeof item !== 'number') parts.push(item);
    else if (Array.isArray(last)) last.push(item);
    else parts.push([item]);
  }
  return parts;
}

/** The rest of an opening after `count` items: ids and runs. */
export function openingFrom(opening: Opening, count: number): Opening {
  let left = count;
  const rest: (readonly number[] | RunPlace)[] = [];
  for (const part of opening) {
    const items = 'medium' in part ? 1 : part.length;
    if (left < items) rest.push('medium' in part ? part : part.slice(left));
    left = Math.max(0, left - items);
  }
  return rest;
}

function checkWords(parts: readonly MessagePart[]): void {
  if (parts.some((part) => typeof part === 'string' && strip(part) !== '')) return;
  const words = parts.filter((part) => typeof part === 'string');
  throw new SparseVilaError(
    'ERR_QUESTION',
    `Expected a question of at least one character, received ${received(words.join(''))}.`,
  );
}

/** Refuses a text that cannot fit before tokenizing it, because tokenizing millions of characters takes seconds. */
function checkLength(turns: readonly Turn[], { tokenizer, decoder }: RowModel): void {
  const most = decoder.config.maxPositions;
  const words = turns.reduce(
    (sum, { parts }) => sum + parts.reduce((own, part) => own + (typeof part === 'string' ? part.length : 0), 0),
    0,
  );
  // Unicode composition (NFC) makes one character out of at most four.
  if (words <= 4 * most * tokenizer.longest) return;
  throw new SparseVilaError(
    'ERR_CONTEXT_OVERFLOW',
    `Expected a question of at most ${most} tokens, received ${words} characters, of which a token has at most ${tokenizer.longest}.`,
  );
}
