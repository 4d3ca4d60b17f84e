// The plot of methods at several ratios: a panel per method with its curve, all others in gray; one for tokens attended at decode, one at prefill.

import type { TopLevelSpec } from 'vega-lite' with { 'resolution-mode': 'import' };
import { CONFIG, FAINT, HIGHLIGHT, INK, isHighlighted, lineOf } from './plot_labels';
import type { MethodSummary } from './summary';
import { byAccuracy } from './table';

const COLUMNS = 6;
/** Pixels of a panel. */
const SIZE = { width: 150, height: 112 };
const OTHER = '#2f6690';

export function curvesPlot(rows: readonly MethodSummary[], subtitle: readonly string[]): TopLevelSpec {
  const sparse = byAccuracy(rows).filter(({ method }) => method !== 'dense');
  const points = sparse.map((row) => ({
    line: lineOf(row),
    accuracy: row.accuracy * 100,
    read: row.activePrefill,
    written: row.activeDecode,
  }));
  const lines = [...new Set(points.map(({ line }) => line))];
  const highlighted = new Set(sparse.filter(isHighlighted).map(lineOf));
  const dense = rows.filter(({ method }) => method === 'dense').map(({ accuracy }) => ({ accuracy: accuracy * 100 }));
  const block = (field: 'read' | 'written', question: string) => ({
    title: { text: question, fontSize: 14, anchor: 'start', offset: 14, color: INK },
    spacing: { row: 26, column: 22 },
    columns: COLUMNS,
    concat: lines.map((line, i) =>
      panel(field, line, i, { points, dense, lines, isHighlighted: highlighted.has(line) }),
    ),
  });
  return {
    title: {
      text: 'Accuracy and its cost in visual tokens',
      subtitle: [
        ...subtitle,
        'Each panel: one method at several ratios. Gray: the other methods.',
        'Dashed: dense, which attends all visual tokens.',
      ],
    },
    config: CONFIG,
    spacing: 40,
    vconcat: [
      block(
        'written',
        'How many answers are right (%), by the number of visual tokens attended while the answer is written?',
      ),
      block(
        'read',
        'How many answers are right (%), by the number of visual tokens attended while the question is read?',
      ),
    ],
  } as TopLevelSpec;
}

interface PanelData {
  readonly points: readonly { line: string; accuracy: number; read: number; written: number }[];
  readonly dense: readonly { accuracy: number }[];
  readonly lines: readonly string[];
  readonly isHighlighted: boolean;
}

function panel(
  field: 'read' | 'written',
  line: string,
  index: number,
  { points, dense, lines, isHighlighted: isOurs }: PanelData,
) {
  const isLowest = index + COLUMNS >= lines.length;
  const most = Math.max(...points.map((point) => point[field]));
  const x = {
    field,
    type: 'quantitative',
    title: isLowest ? 'tokens attended (mean)' : null,
    scale: { domain: [0, most * 1.12], nice: false },
    axis: { tickCount: 4, titleColor: FAINT },
  };
  const y = {
    field: 'accuracy',
    type: 'quantitative',
    title: null,
    scale: { domain: [0, 108], nice: false },
    axis: { values: [0, 25, 50, 75, 100] },
  };
  const color = isOurs ? HIGHLIGHT : OTHER;
  const own = points.filter((point) => point.line === line);
  const others = points.filter((point) => point.line !== line);
  return {
    title: { text: line, fontSize: 12, anchor: 'start', frame: 'group', offset: 4, color: isOurs ? HIGHLIGHT : INK },
    ...SIZE,
    layer: [
      {
        data: { values: others },
        mark: { type: 'line', strokeWidth: 1, color: '#d5d8dd' },
        encoding: { x, y, detail: { field: 'line' } },
      },
      { data: { values: dense }, mark: { type: 'rule', strokeDash: [5, 4], color: '#555' }, encoding: { y } },
      { data: { values: own }, mark: { type: 'line', strokeWidth: 2, color }, encoding: { x, y } },
      {
        data: { values: own },
        mark: { type: 'point', filled: true, shape: isOurs ? 'diamond' : 'circle', size: 60, opacity: 1, color },
        encoding: { x, y },
      },
    ],
  };
}
