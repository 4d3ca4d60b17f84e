// Scores of an answer against the accepted ones, as in the usual benchmarks, from 0 to 1. Knows no model.

import { messageOf, received, SparseVilaError } from '../errors';
import type { TrueTurn } from './data_set';
import { editDistance } from './edit_distance';
import { vqaAccuracy } from './vqa';

/** A score from 0 (wrong) to 1 (right). A function of the caller may be asynchronous, to ask another model for instance. */
export type Score = (answer: string, turn: TrueTurn) => number | Promise<number>;

/** The accepted answers of a turn. */
function truths({ answer, answers }: TrueTurn): readonly string[] {
  return answers ?? [answer];
}

/** 1 if the answer equals an accepted one, ignoring surrounding blanks. */
function exact(answer: string, turn: TrueTurn): number {
  return Number(truths(turn).some((truth) => truth.trim() === answer.trim()));
}

/**
 * 1 if the answer and an accepted one are equal in lower case, without punctuation, articles and superfluous blanks: exact match of SQuAD 1.1
 * (Rajpurkar et al. 2016, `normalize_answer` of its evaluation script), after Unicode's NFKC. A text that would become empty, such as "A",
 * keeps its articles; a text of punctuation alone stays unchanged.
 */
function normalized(answer: string, turn: TrueTurn): number {
  return Number(truths(turn).some((truth) => withoutArticles(truth) === withoutArticles(answer)));
}

/**
 * 1 if an accepted answer occurs in the answer as whole words, in lower case and without punctuation. OCRBench (Liu et al. 2023) searches for
 * a substring; whole words prevent finding "no" in "none". Scripts without blanks between words have no word boundaries.
 */
function contains(answer: string, turn: TrueTurn): number {
  return Number(truths(turn).some((truth) => containsWords(plain(answer), plain(truth))));
}

/**
 * Average normalized Levenshtein similarity (ANLS; Biten et al. 2019, "Scene Text Visual Question Answering", eq. 1) of one answer:
 * max over the accepted answers of 1 - NL where NL < 0.5, else 0, with NL = distance / length of the longer one. Both in lower case
 * and with single blanks, as in the evaluation of DocVQA (Mathew et al. 2021).
 */
function anls(answer: string, turn: TrueTurn): number {
  const [given, threshold] = [blanks(answer.toLowerCase()), 0.5];
  const similarities = truths(turn).map((truth) => {
    const accepted = blanks(truth.toLowerCase());
    const longer = Math.max([...given].length, [...accepted].length);
    const distance = longer === 0 ? 0 : editDistance(given, accepted) / longer;
    return distance < threshold ? 1 - distance : 0;
  });
  return Math.max(...similarities);
}

/** The scores by name. `vqa` is the accuracy of VQAv2 (vqa.ts). */
export const SCORES = {
  exact,
  normalized,
  contains,
  vqa: (answer: string, turn: TrueTurn): number => vqaAccuracy(answer, truths(turn)),
  anls,
} as const satisfies Readonly<Record<string, Score>>;

export type ScoreName = keyof typeof SCORES;
export const SCORE_NAMES = Object.keys(SCORES) as readonly ScoreName[];

/**
 * The score of one answer.
 * @throws SparseVilaError `ERR_OPTION_INVALID` if a function of the caller does not return a share, `ERR_CALLBACK` if it throws
 */
export async function scoreOf(score: ScoreName | Score, answer: string, turn: TrueTurn): Promise<number> {
  const value = typeof score === 'function' ? await called(score, answer, turn) : SCORES[score](answer, turn);
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `evaluate: expected a share from 0 to 1 from score, received ${received(value)} for the question ${received(turn.question)}.`,
  );
}

async function called(score: Score, answer: string, turn: TrueTurn): Promise<unknown> {
  try {
    return await score(answer, turn);
  } catch (cause) {
    throw new SparseVilaError('ERR_CALLBACK', `score threw an error: ${messageOf(cause)}`, { cause });
  }
}

function blanks(text: string): string {
  return text.trim().replace(/\s+/gu, ' ');
}

/** Lower case, without punctuation, with single blanks; a text of punctuation alone stays unchanged. */
function plain(text: string): string {
  const lower = blanks(text.normalize('NFKC').toLowerCase());
  return blanks(lower.replace(/[\p{P}\p{S}]/gu, '')) || lower;
}

function withoutArticles(text: string): string {
  const words = plain(text);
  return blanks(words.replace(/\b(?:a|an|the)\b/gu, ' ')) || words;
}

/** Letters and digits of scripts that separate words by blanks. */
const SPACED = /(?![\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmr}\p{sc=Mymr}])[\p{L}\p{M}\p{N}]/u;

function containsWords(text: string, words: string): boolean {
  if (words === '') return text === '';
  for (let at = text.indexOf(words); at >= 0; at = text.indexOf(words, at + 1)) {
    const before = [...text.slice(0, at)].at(-1) ?? '';
    const [after = ''] = text.slice(at + words.length);
    const [first = '', last = ''] = [[...words][0], [...words].at(-1)];
    const isBound = (outer: string, inner: string): boolean => !(SPACED.test(outer) && SPACED.test(inner));
    if (isBound(before, first) && isBound(after, last)) return true;
  }
  return false;
}
