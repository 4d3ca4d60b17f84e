// The rows as a table for people: a terminal's, in fixed columns. Knows no colours.

import type { Row } from './rows';
import { percent } from './settings';

type Column = readonly [title: string, cell: (row: Row) => string];

/** Rows by accuracy, dense first: accuracy overall, in turn 1 and in later turns, by kind, agreement, active tokens, times. */
export function formatTable(rows: readonly Row[]): string {
  const kinds = Object.keys(rows[0]?.accuracyByKind ?? {});
  const columns: Column[] = [
    ['method', ({ method }) => method],
    ['ratios', ({ prefillSparsity, decodeSparsity }) => `${percent(prefillSparsity)}/${percent(decodeSparsity)}`],
    ['positions', ({ positions }) => positions],
    ...(rows.some(({ protocol }) => protocol !== undefined)
      ? [['history', ({ protocol }: Row) => protocol ?? ''] as const]
      : []),
    ['right', ({ accuracy }) => points(accuracy)],
    ['turn 1', ({ accuracyByTurn }) => points(accuracyByTurn[0])],
    ['later', ({ accuracyByTurn }) => points(laterTurns(accuracyByTurn))],
    ['as dense', ({ agreement }) => points(agreement)],
    ...kinds.map((kind): Column => [kind, ({ accuracyByKind }) => points(accuracyByKind[kind])]),
    ['prefill', ({ activePrefill }) => activePrefill.toFixed(1)],
    ['decode', ({ activeDecode }) => activeDecode.toFixed(1)],
    ['ms/turn', ({ ms }) => ms.total.toFixed(1)],
    ['ms all', ({ ms }) => ms.conversation.toFixed(0)],
  ];
  const cells = [
    columns.map(([title]) => title),
    ...byAccuracy(rows).map((row) => columns.map(([, cell]) => cell(row))),
  ];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]?.length ?? 0)));
  const aligned = cells.map((line) =>
    line
      .map((cell, i) => (i < 3 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
  return `${aligned.join('\n')}\n\n${LEGEND}\n`;
}

const LEGEND = `right, turn 1, later: answers that equal the truth, in percent. as dense: answers that equal dense's. Then right answers by kind.
prefill, decode: visual tokens attended while a question is read, and while its answer is written (mean over layers and turns).
ms/turn, ms all: median time of a turn, and of all turns of a conversation with its pictures.`;

/** The best first, dense before all. */
export function byAccuracy(rows: readonly Row[]): Row[] {
  return [...rows].sort(
    (a, b) => Number(b.method === 'dense') - Number(a.method === 'dense') || b.accuracy - a.accuracy,
  );
}

/** Mean accuracy of all turns but the first; of the first where it is the only one. */
export function laterTurns(accuracyByTurn: readonly number[]): number | undefined {
  const later = accuracyByTurn.length > 1 ? accuracyByTurn.slice(1) : accuracyByTurn;
  return later.reduce((sum, accuracy) => sum + accuracy, 0) / later.length;
}

function points(share: number | undefined): string {
  return share === undefined || Number.isNaN(share) ? '-' : (share * 100).toFixed(1);
}
