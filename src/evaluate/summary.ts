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
  /** Share of answers that equal those of dense. */
  readonly agreement: number;
  /** Mean numbers of visual tokens attended at prefill and at decode, over layers and turns. */
  readonly activePrefill: number;
  readonly activeDecode: number;
  /** Milliseconds per turn: for each stage, the median over conversations of the mean over turns. `conversation`: all turns together. */
  readonly ms: Times & { readonly conversation: number };
}

/** One answered conversation, with the truth and the answers of dense. */
export interface Answered {
  readonly turns: readonly TrueTurn[];
  readonly results: readonly TurnResult[];
  /** The score of each turn, from 0 to 1. */
  readonly scores: readonly number[];
  readonly dense: readonly TurnResult[];
}

export function summarize(setting: Setting, answered: readonly Answered[]): MethodSummary {
  const judged = answered.flatMap(({ turns, results, scores, dense }) =>
    results.map((result, turn) => ({
      turn,
      kind: turns[turn]?.kind ?? '',
      score: scores[turn] ?? 0,
      agrees: result.answer === dense[turn]?.answer,
      result,
    })),
  );
  const scored = (of: typeof judged): number => digits(mean(of.map(({ score }) => score)));
  const longest = answered.reduce((most, { turns }) => Math.max(most, turns.length), 0);
  const kinds = [...new Set(judged.map(({ kind }) => kind))].sort();
  return {
    ...setting,
    accuracy: scored(judged),
    accuracyByTurn: Array.from({ length: longest }, (_, t) => scored(judged.filter(({ turn }) => turn === t))),
    accuracyByKind: Object.fromEntries(kinds.map((kind) => [kind, scored(judged.filter((one) => one.kind === kind))])),
    agreement: digits(mean(judged.map(({ agrees }) => Number(agrees)))),
    activePrefill: digits(mean(judged.map(({ result }) => result.activePrefill))),
    activeDecode: digits(mean(judged.map(({ result }) => result.activeDecode))),
    ms: timesOf(answered),
  };
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
