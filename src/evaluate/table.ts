// Formats summaries as a table: fixed columns, split into blocks if the terminal is narrower. Knows no colors.

import { ratiosText } from './settings';
import type { MethodSummary } from './summary';

interface Column {
  readonly title: string;
  readonly cell: (row: MethodSummary) => string;
  /** Whether the column identifies a row, and is repeated at the left of every block. */
  readonly isKey?: true;
}

/**
 * The summaries by accuracy, dense first: accuracy overall, in turn 1 and in later turns, by kind, agreement, active tokens, times. Columns that
 * do not fit into `width` continue in another block below, which repeats the identifying columns.
 */
export function formatTable(rows: readonly MethodSummary[], width = 80): string {
  const ordered = byAccuracy(rows);
  const columns = columnsOf(rows).map(({ title, cell, isKey = false }) => {
    const cells = [title, ...ordered.map(cell)];
    const longest = Math.max(...cells.map(({ length }) => length));
    return { isKey, longest, cells: cells.map((text) => (isKey ? text.padEnd(longest) : text.padStart(longest))) };
  });
  type Padded = (typeof columns)[number];
  const keys = columns.filter(({ isKey }) => isKey);
  const widthOf = (block: readonly Padded[]): number => block.reduce((sum, { longest }) => sum + longest + 2, -2);
  const blocks: Padded[][] = [];
  for (const column of columns.filter(({ isKey }) => !isKey)) {
    const block = blocks.at(-1);
    if (block !== undefined && widthOf([...block, column]) <= width) block.push(column);
    else blocks.push([...keys, column]);
  }
  const lines = (block: readonly Padded[]): string =>
    [rows, ...rows]
      .map((_, i) =>
        block
          .map(({ cells }) => cells[i] ?? '')
          .join('  ')
          .trimEnd(),
      )
      .join('\n');
  return `${blocks.map(lines).join('\n\n')}\n\n${legend(
    width,
    rows.some(({ drafted }) => drafted !== undefined),
  )}\n`;
}

function columnsOf(rows: readonly MethodSummary[]): Column[] {
  const kinds = Object.keys(rows[0]?.accuracyByKind ?? {});
  const has = (test: (row: MethodSummary) => boolean): boolean => rows.some(test);
  return [
    { title: 'method', cell: ({ method }) => method, isKey: true },
    { title: 'ratios', cell: ratiosText, isKey: true },
    ...(has(({ positions }) => positions !== 'original')
      ? [{ title: 'positions', cell: ({ positions }: MethodSummary) => positions, isKey: true as const }]
      : []),
    ...(has(({ refresh }) => refresh !== undefined)
      ? [{ title: 'refresh', cell: ({ refresh }: MethodSummary) => refresh?.toString() ?? '', isKey: true as const }]
      : []),
    ...(has(({ protocol }) => protocol !== undefined)
      ? [{ title: 'history', cell: ({ protocol }: MethodSummary) => protocol ?? '', isKey: true as const }]
      : []),
    { title: 'accuracy', cell: ({ accuracy }) => share(accuracy) },
    { title: 'turn 1', cell: ({ accuracyByTurn }) => share(accuracyByTurn[0]) },
    { title: 'later', cell: ({ accuracyByTurn }) => share(laterTurns(accuracyByTurn)) },
    { title: 'as dense', cell: ({ agreement }) => share(agreement) },
    ...(has(({ drafted }) => drafted !== undefined)
      ? [
          { title: 'drafted', cell: ({ drafted }: MethodSummary) => count(drafted) },
          { title: 'accepted', cell: ({ accepted }: MethodSummary) => count(accepted) },
        ]
      : []),
    { title: 'prefill', cell: ({ activePrefill }) => activePrefill.toFixed(1) },
    { title: 'decode', cell: ({ activeDecode }) => activeDecode.toFixed(1) },
    { title: 'ms/turn', cell: ({ ms }) => ms.total.toFixed(1) },
    { title: 'ms all', cell: ({ ms }) => ms.conversation.toFixed(0) },
    ...kinds.map((kind): Column => ({ title: kind, cell: ({ accuracyByKind }) => share(accuracyByKind[kind]) })),
  ];
}

const DRAFTS =
  'drafted, accepted: mean tokens of a turn that were drafted for verified answers, and those of them that the answers took.';

const LEGEND = [
  'accuracy, turn 1, later: mean score of the answers, from 0 to 1. as dense: share of answers that equal those of dense.',
  'prefill, decode: visual tokens attended while a question is read, and while its answer is written (means over layers and turns).',
  'ms/turn, ms all: median time of a turn, and of all turns of a conversation with its pictures.',
  'Then the mean score by kind of question.',
];

function legend(width: number, isVerified: boolean): string {
  return [...LEGEND, ...(isVerified ? [DRAFTS] : [])].map((text) => wrapped(text, width)).join('\n');
}

function wrapped(text: string, width: number): string {
  return text.split(' ').reduce((lines, word) => {
    const length = lines.length - (lines.lastIndexOf('\n') + 1);
    return `${lines}${length + 1 + word.length > width ? '\n' : ' '}${word}`;
  });
}

/** Dense first, then by descending accuracy. */
export function byAccuracy(rows: readonly MethodSummary[]): MethodSummary[] {
  return [...rows].sort(
    (a, b) => Number(b.method === 'dense') - Number(a.method === 'dense') || b.accuracy - a.accuracy,
  );
}

/** Mean accuracy of all turns but the first; of the first if it is the only one. */
export function laterTurns(accuracyByTurn: readonly number[]): number | undefined {
  const later = accuracyByTurn.length > 1 ? accuracyByTurn.slice(1) : accuracyByTurn;
  return later.reduce((sum, accuracy) => sum + accuracy, 0) / later.length;
}

const count = (value: number | undefined): string => value?.toFixed(1) ?? '-';

function share(value: number | undefined): string {
  return value === undefined || Number.isNaN(value) ? '-' : value.toFixed(3);
}
