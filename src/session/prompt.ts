// The text of a turn as token ids, cut at its images: what opens it (up to the last image) and the question.
// The whole turn is encoded at once, so that ids are those of the rendered prompt.

import { SparseVilaError } from '../errors';
import type { RowModel } from '../models/model';
import type { TurnPieces } from '../text/template';
import type { Conversation } from './conversation';

/** `null` stands for the next image. */
export type Opening = readonly (readonly number[] | null)[];

export interface TurnPrompt {
  /** Rows before the question: not part of its relevance. */
  readonly opening: Opening;
  readonly question: readonly number[];
  /** The turn's text up to its last image, and how many images it holds. */
  readonly opened: string;
  readonly markers: number;
  readonly first: boolean;
}

/**
 * @param words the user's words
 * @param images how many images this turn adds
 * @throws SparseVilaError `ERR_QUESTION` when the words are empty or contain the image marker
 */
export function turnPrompt(
  model: RowModel,
  pieces: TurnPieces,
  { phase }: Conversation,
  words: string,
  images: number,
): TurnPrompt {
  const { imageMarker, tokenizer } = model;
  checkWords(words, imageMarker.text);
  const first = phase.at === 'start' || (phase.at === 'open' && phase.first);
  const { before, after } = first ? pieces.first : pieces.next;
  const known = phase.at === 'open' ? phase.markers : 0;
  const opened = (phase.at === 'open' ? phase.opened : before) + imageMarker.text.repeat(images);
  const spoken = (pieces.trims ? words.trim() : words) + after;
  const lead = first ? '' : pieces.endOfAnswer;
  const ids = tokenizer.encode(lead + opened + spoken);
  const prefix = first && ids[0] !== tokenizer.prefixIds[0] ? tokenizer.prefixIds : [];
  const closing = closingLength(tokenizer.encode(lead), ids);
  const parts = splitAt([...prefix, ...ids], imageMarker.id);
  const question = parts.pop() ?? [];
  const opening: (readonly number[] | null)[] = parts.slice(known).flatMap((part) => [part, null]);
  const turn = { opened, markers: known + images, first };
  if (phase.at !== 'answered') return { ...turn, opening, question };
  if (parts.length > 0) return { ...turn, opening: [phase.pending, ...opening], question };
  return { ...turn, opening: [[...phase.pending, ...question.slice(0, closing)]], question: question.slice(closing) };
}

function checkWords(words: string, marker: string): void {
  if (typeof words !== 'string' || words.trim() === '') {
    throw new SparseVilaError(
      'ERR_QUESTION',
      `Expected a question of at least one character, received ${JSON.stringify(words) ?? typeof words}.`,
    );
  }
  if (words.includes(marker)) {
    throw new SparseVilaError(
      'ERR_QUESTION',
      `Expected a question without the image marker ${JSON.stringify(marker)}: images are given by the option "images".`,
    );
  }
}

/** How many of `ids` close the previous answer: all of `closing` where ids start with it. */
function closingLength(closing: readonly number[], ids: readonly number[]): number {
  return closing.every((id, i) => ids[i] === id) ? closing.length : 0;
}

function splitAt(ids: readonly number[], marker: number): number[][] {
  const parts: number[][] = [[]];
  for (const id of ids) {
    if (id === marker) parts.push([]);
    else parts.at(-1)?.push(id);
  }
  return parts;
}
