// Summarizes scored answers per setting: mean scores overall, by turn and by kind; agreement with dense; medians of times. Knows no model.

import { type Protocol, STAGES, type Times, type TurnResult } from './converse';
import type { TrueTurn } from './data_set';
import type { Setting } from './settings';

export interface MethodSummary extends Setting {
  /** Present only if several protocols were compared. */
  readonly protocol?: Protocol;
  /** Mean score of the answers; with exact match the share of correct answers. */
  readonly accuracy: number;
  readonly accuracyByTurn: readonly number[];
  readonly accuracyByKind: Readonly<Record<string, number>>;
  /** Present only if films were asked about: accuracy for each number of frames, ascending. */
  readonly films?: readonly FilmAccuracy[];
  /** Share of answers that equal those of dense. */
  readonly agreement: number;
  /** Mean numbers of visual tokens attended at prefill and at decode, over layers and turns. */
  readonly activePrefill: number;
  readonly activeDecode: number;
  /** Of verified answers: mean numbers of drafted tokens of a turn, and of those that the answers took. */
  readonly drafted?: number;
  readonly accepted?: number;
  /** Milliseconds per turn: for each stage, the median over conversations of the mean over turns. `conversation`: all turns together. */
  readonly ms: Times & { readonly conversation: number };
}

/** A film's parts of equal length, by which the places of answers are reported. */
export const PLACES = 5;

export interface FilmAccuracy {
  readonly frames: number;
  /** Mean score of all questions about films of this length. */
  readonly accuracy: number;
  /** By the part of the film whose frame alone shows the answer; null: there was no such question. */
  readonly accuracyByPlace: readonly (number | null)[];
}

/** One answered conversation, with the truth and the answers of dense. */
export interface Answered {
  readonly turns: readonly TrueTurn[];
  /** The number of frames, if the conversation is about a film. */
  readonly frames?: number | undefined;
  readonly results: readonly TurnResult[];
  /** The score of each turn, from 0 to 1. */
  readonly scores: readonly number[];
  readonly dense: readonly TurnResult[];
  /** Whether each turn counts for scores, agreement and tokens; absent: all do. Times are always those of all. */
  readonly counts?: readonly boolean[];
}

export function summarize(setting: Setting, answered: readonly Answered[]): MethodSummary {
  const all = answered.flatMap(({ turns, frames, results, scores, dense, counts }) =>
    results.map((result, turn) => ({
      isCounted: counts?.[turn] ?? true,
      turn,
      kind: turns[turn]?.kind ?? '',
      frame: turns[turn]?.frame,
      frames,
      score: scores[turn] ?? 0,
      agrees: result.answer === dense[turn]?.answer,
      result,
    })),
  );
  const judged = all.filter(({ isCounted }) => isCounted);
  const scored = (of: typeof judged): number => digits(mean(of.map(({ score }) => score)));
  const longest = answered.reduce((most, { turns }) => Math.max(most, turns.length), 0);
  const kinds = [...new Set(judged.map(({ kind }) => kind))].sort();
  const films = filmsOf(judged);
  return {
    ...setting,
    accuracy: scored(judged),
    accuracyByTurn: Array.from({ length: longest }, (_, t) => scored(judged.filter(({ turn }) => turn === t))),
    accuracyByKind: Object.fromEntries(kinds.map((kind) => [kind, scored(judged.filter((one) => one.kind === kind))])),
    ...(films.length > 0 && { films }),
    agreement: digits(mean(judged.map(({ agrees }) => Number(agrees)))),
    activePrefill: digits(mean(judged.map(({ result }) => result.activePrefill))),
    activeDecode: digits(mean(judged.map(({ result }) => result.activeDecode))),
    ...draftsOf(judged.map(({ result }) => result)),
    ms: timesOf(answered),
  };
}

/** Mean numbers of drafted and of accepted tokens, if the answers were verified. */
function draftsOf(results: readonly TurnResult[]): Pick<MethodSummary, 'drafted' | 'accepted'> {
  if (!results.some(({ drafted }) => drafted !== undefined)) return {};
  const meanOf = (name: 'drafted' | 'accepted'): number => digits(mean(results.map((result) => result[name] ?? 0)));
  return { drafted: meanOf('drafted'), accepted: meanOf('accepted') };
}

interface JudgedFrame {
  readonly score: number;
  readonly frame: number | undefined;
  readonly frames: number | undefined;
}

function filmsOf(judged: readonly JudgedFrame[]): FilmAccuracy[] {
  const lengths = [...new Set(judged.flatMap(({ frames }) => frames ?? []))].sort((a, b) => a - b);
  const scored = (of: readonly JudgedFrame[]): number => digits(mean(of.map(({ score }) => score)));
  return lengths.map((frames) => {
    const about = judged.filter((one) => one.frames === frames);
    const accuracyByPlace = Array.from({ length: PLACES }, (_, place) => {
      const there = about.filter(({ frame = -1 }) => Math.floor((PLACES * frame) / frames) === place);
      return there.length === 0 ? null : scored(there);
    });
    return { frames, accuracy: scored(about), accuracyByPlace };
  });
}

function timesOf(answered: readonly Answered[]): MethodSummary['ms'] {
  const stage = (name: keyof Times): number =>
    median(answered.map(({ results }) => mean(results.map(({ ms }) => ms[name]))));
  const stages = Object.fromEntries(STAGES.map((name) => [name, digits(stage(name))])) as Times;
  const conversation = median(answered.map(({ results }) => results.reduce((sum, { ms }) => sum + ms.total, 0)));
  return { ...stages, conversation: digits(conversation) };
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low = 0, high = 0] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]];
  return (low + high) / 2;
}

function digits(value: number): number {
  return Math.round(value * 10_000) / 10_000;
}
