// The text of a turn as token ids, cut at its images: what opens it (up to the last image) and the question.
// The whole turn is encoded at once, so that ids are those of the rendered prompt.

import { received, SparseVilaError } from '../errors';
import { MARKER } from '../models/media';
import type { RowModel } from '../models/model';
import { checkEmbedded } from '../text/embedded';
import { strip, stripEnd } from '../text/strip';
import type { TurnPieces } from '../text/template';
import type { Conversation } from './conversation';

/** `null` stands for the next run of visual rows. */
export type Opening = readonly (readonly number[] | null)[];

export interface TurnPrompt {
  /** Rows before the question: not part of its relevance. */
  readonly opening: Opening;
  readonly question: readonly number[];
  /** The turn's text up to its last medium, and how many runs of visual rows it holds. */
  readonly opened: string;
  readonly markers: number;
  readonly first: boolean;
}

/**
 * The user's words and the system text are plain text: markup that they spell (`<image>`, `<|im_end|>`) is written with ordinary tokens, so
 * that only the template opens turns and only `images` adds images. All other ids are those of the rendered prompt.
 * @param words the user's words
 * @param media the texts that stand for the media this turn adds, one MARKER per run of visual rows
 * @throws SparseVilaError `ERR_QUESTION` when the words are empty or have a token that the model does not embed; `ERR_TOKENIZER…`
 */
export function turnPrompt(
  model: RowModel,
  pieces: TurnPieces,
  { phase }: Conversation,
  words: string,
  media: readonly string[],
): TurnPrompt {
  const { marker, tokenizer } = model;
  checkWords(words);
  const first = phase.at === 'start' || (phase.at === 'open' && phase.first);
  const { before, after } = first ? pieces.first : pieces.next;
  const known = phase.at === 'open' ? phase.markers : 0;
  const added = media.join('');
  const markers = known + added.split(MARKER).length - 1;
  const opened = (phase.at === 'open' ? phase.opened : before) + added.replaceAll(MARKER, marker.text);
  // A message that begins with media has no white space at its start to lose.
  const said = !pieces.trims ? words : markers > 0 ? stripEnd(words) : strip(words);
  checkLength(said, model);
  const lead = first ? '' : pieces.endOfAnswer;
  const begin = lead.length + opened.length;
  const plain = [{ begin, end: begin + said.length }, ...(first && pieces.system ? [pieces.system] : [])];
  const ids = tokenizer.encode(lead + opened + said + after, { plain, continues: !first });
  const prefix = first && ids[0] !== tokenizer.prefixIds[0] ? tokenizer.prefixIds : [];
  const closing = closingLength(tokenizer.encode(lead, { continues: true }), ids);
  const parts = splitAt([...prefix, ...ids], marker.id);
  if (parts.length !== markers + 1) throw misplaced(parts.length - 1, markers);
  const rows = model.decoder.config.vocabSize;
  checkEmbedded(parts.flat(), tokenizer, rows, 'the question or the system text', 'ERR_QUESTION');
  const question = parts.pop() ?? [];
  const opening: (readonly number[] | null)[] = parts.slice(known).flatMap((part) => [part, null]);
  const turn = { opened, markers, first };
  if (phase.at !== 'answered') return { ...turn, opening, question };
  if (parts.length > 0) return { ...turn, opening: [phase.pending, ...opening], question };
  return { ...turn, opening: [[...phase.pending, ...question.slice(0, closing)]], question: question.slice(closing) };
}

function checkWords(words: string): void {
  if (typeof words === 'string' && strip(words) !== '') return;
  throw new SparseVilaError(
    'ERR_QUESTION',
    `Expected a question of at least one character, received ${received(words)}.`,
  );
}

/** Refuses words that cannot fit without encoding them, which takes seconds for millions of characters. */
function checkLength(words: string, { tokenizer, decoder }: RowModel): void {
  const most = decoder.config.maxPositions;
  // Composing makes one character of up to four.
  if (words.length <= 4 * most * tokenizer.longest) return;
  throw new SparseVilaError(
    'ERR_CONTEXT_OVERFLOW',
    `Expected a question of at most ${most} tokens, received ${words.length} characters, of which a token has at most ${tokenizer.longest}.`,
  );
}

function misplaced(found: number, given: number): SparseVilaError {
  return new SparseVilaError(
    'ERR_TEMPLATE_INVALID',
    `Expected one image marker in the prompt for each of ${given} images, found ${found}. The tokenizer does not keep the marker in one piece.`,
  );
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
