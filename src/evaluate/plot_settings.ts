// The plot of settings, one per line: a panel for accuracy, and one each for the visual tokens attended at prefill and at decode. Every line
// is named and every mark has its number, so that no mark covers another.

import type { TopLevelSpec } from 'vega-lite' with { 'resolution-mode': 'import' };
import { CONFIG, FAINT, FONT, HIGHLIGHT, INK, isHighlighted, PLAIN, RATIOS_NOTE, settingOf } from './plot_labels';
import type { MethodSummary } from './summary';
import { byAccuracy } from './table';

/** Lengths in pixels. */
const STEP = 24;
const WIDTH = { accuracy: 300, tokens: 230 };

interface Panel {
  readonly field: 'accuracy' | 'read' | 'written';
  readonly question: readonly string[];
  readonly axis: string;
  readonly width: number;
  readonly most: number;
  readonly shape: string;
}

export function settingsPlot(rows: readonly MethodSummary[], subtitle: readonly string[]): TopLevelSpec {
  const sorted = byAccuracy(rows);
  const values = sorted.map((row) => ({
    setting: settingOf(row),
    accuracy: row.accuracy * 100,
    read: row.activePrefill,
    written: row.activeDecode,
    highlighted: isHighlighted(row) ? 'yes' : row.method === 'dense' ? 'dense' : 'no',
  }));
  const order = values.map(({ setting }) => setting);
  const tokens = Math.max(...values.flatMap(({ read, written }) => [read, written]));
  const panels: Panel[] = [
    {
      ...{ field: 'accuracy', question: ['How many answers are right?'], axis: 'right answers (%)', shape: 'circle' },
      ...{ width: WIDTH.accuracy, most: 100 },
    },
    {
      ...{
        field: 'read',
        question: ['How much does the model look at', 'while it reads the question?'],
        shape: 'square',
      },
      ...{ axis: 'visual tokens attended (mean)', width: WIDTH.tokens, most: tokens },
    },
    {
      ...{
        field: 'written',
        question: ['How much does the model look at', 'while it writes the answer?'],
        shape: 'diamond',
      },
      ...{ axis: 'visual tokens attended (mean)', width: WIDTH.tokens, most: tokens },
    },
  ];
  return {
    title: { text: 'Accuracy and its cost in visual tokens', subtitle: [...subtitle, ...RATIOS_NOTE] },
    config: CONFIG,
    spacing: 40,
    bounds: 'flush',
    hconcat: panels.map((panel, i) => panelSpec(panel, i === 0, order, values)),
  } as TopLevelSpec;
}

function panelSpec(
  { field, question, axis, width, most, shape }: Panel,
  isFirst: boolean,
  order: readonly string[],
  values: object[],
) {
  const y = {
    field: 'setting',
    type: 'nominal',
    sort: order,
    title: null,
    axis: isFirst ? { domain: false, ticks: false, labelPadding: 8, labelLimit: 300, labelColor: INK } : null,
  };
  const x = {
    field,
    type: 'quantitative',
    title: axis,
    // Room for the number after the last mark.
    scale: { domain: [0, most * 1.14], nice: false },
    axis: { values: ticksTo(most), titleColor: FAINT },
  };
  const color = {
    field: 'highlighted',
    type: 'nominal',
    legend: null,
    scale: { domain: ['yes', 'no', 'dense'], range: [HIGHLIGHT, PLAIN, INK] },
  };
  const number = { type: 'text', align: 'left', dx: 9, fontSize: 11, font: FONT, color: INK };
  return {
    title: {
      text: [...question],
      fontSize: 13,
      anchor: 'start',
      frame: 'group',
      offset: 10,
      lineHeight: 17,
      color: INK,
    },
    width,
    height: { step: STEP },
    data: { values },
    layer: [
      { mark: { type: 'rule', strokeWidth: 2.5, opacity: 0.55 }, encoding: { y, x, x2: { datum: 0 }, color } },
      { mark: { type: 'point', filled: true, shape, size: 95, opacity: 1 }, encoding: { y, x, color } },
      { mark: number, encoding: { y, x, text: { field, type: 'quantitative', format: '.1f' } } },
    ],
  };
}

/** At most six round numbers from 0 to `most`. */
function ticksTo(most: number): number[] {
  const raw = most / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((unit) => unit * power).find((unit) => unit >= raw) ?? raw;
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => i * step);
}
