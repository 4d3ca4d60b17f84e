// Aligned columns of text, and the table that compares the times of two methods.

import { stripVTControlCharacters } from 'node:util';
import { time } from '../../src/cli/turn';
import type { TurnStats } from '../../src/index';

/** Blocks of lines next to each other, each as wide as `width` or its widest line. Colors take no room. */
export function sideBySide(blocks: readonly (readonly string[])[], width: number): string {
  const height = Math.max(...blocks.map((block) => block.length));
  const widths = blocks.map((block) => Math.max(width, ...block.map((line) => stripVTControlCharacters(line).length)));
  const lines = Array.from({ length: height }, (_, y) => blocks.map((block, x) => pad(block[y] ?? '', widths[x] ?? 0)));
  return lines.map((cells) => cells.join('  ').trimEnd()).join('\n');
}

function pad(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - stripVTControlCharacters(text).length));
}

/** Times of a conversation: milliseconds of each stage over its turns, and of one decoded token. */
export type ConversationTimes = Readonly<Record<keyof TurnStats['ms'], number>>;

const STAGES: readonly (readonly [keyof TurnStats['ms'], string])[] = [
  ['image', 'image'],
  ['tower', 'vision tower'],
  ['project', 'projector'],
  ['prefill', 'prefill'],
  ['retrieve', 'retrieval'],
  ['perToken', 'per decoded token'],
  ['total', 'total'],
];

/** Stages summed over the turns; the time of a token is the mean over turns, weighted by their tokens. */
export function conversationTimes(turns: readonly TurnStats[]): ConversationTimes {
  const sum = (value: (turn: TurnStats) => number): number => turns.reduce((total, turn) => total + value(turn), 0);
  const tokens = sum((turn) => turn.tokens.generated);
  const entries = STAGES.map(([stage]) => [
    stage,
    stage === 'perToken'
      ? sum((turn) => turn.ms.perToken * turn.tokens.generated) / Math.max(1, tokens)
      : sum((turn) => turn.ms[stage]),
  ]);
  return Object.fromEntries(entries) as ConversationTimes;
}

/** The median of each stage over several conversations. */
export function medianTimes(runs: readonly ConversationTimes[]): ConversationTimes {
  const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
  return Object.fromEntries(
    STAGES.map(([stage]) => [stage, median(runs.map((run) => run[stage]))]),
  ) as ConversationTimes;
}

/** Lines of the table: a stage, then a column for each method. */
export function timeTable(methods: Readonly<Record<string, ConversationTimes>>): string[] {
  const names = Object.keys(methods);
  const head = ['milliseconds'.padEnd(18), ...names.map((name) => name.padStart(12))].join('');
  const rows = STAGES.map(([stage, label]) =>
    [label.padEnd(18), ...Object.values(methods).map((times) => time(times[stage]).padStart(12))].join(''),
  );
  return [head, '-'.repeat(head.length), ...rows];
}
