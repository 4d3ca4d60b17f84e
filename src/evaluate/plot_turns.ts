// The plot by turn: a colored table with a line per setting, a column per turn and one for all turns, and the number in each cell.

import type { TopLevelSpec } from 'vega-lite' with { 'resolution-mode': 'import' };
import { CONFIG, FONT, INK, RATIOS_NOTE, settingOf } from './plot_labels';
import type { MethodSummary } from './summary';
import { byAccuracy } from './table';

export function turnsPlot(rows: readonly MethodSummary[], subtitle: readonly string[]): TopLevelSpec {
  const sorted = byAccuracy(rows);
  const values = sorted.flatMap((row) => [
    ...row.accuracyByTurn.map((accuracy, i) => ({
      setting: settingOf(row),
      turn: `turn ${i + 1}`,
      accuracy: accuracy * 100,
    })),
    { setting: settingOf(row), turn: 'all', accuracy: row.accuracy * 100 },
  ]);
  const turns = [...new Set(values.map(({ turn }) => turn))];
  const y = {
    field: 'setting',
    type: 'nominal',
    title: null,
    sort: sorted.map(settingOf),
    axis: { domain: false, ticks: false, labelLimit: 300, labelPadding: 8, labelColor: INK },
  } as const;
  const x = {
    field: 'turn',
    type: 'nominal',
    title: null,
    sort: turns,
    axis: { orient: 'top', domain: false, ticks: false, labelAngle: 0, labelPadding: 6 },
  } as const;
  return {
    title: { text: 'How many answers are right in each turn? (%)', subtitle: [...subtitle, ...RATIOS_NOTE] },
    width: { step: 64 },
    height: { step: 28 },
    config: CONFIG,
    data: { values },
    encoding: { x, y },
    layer: [
      {
        mark: { type: 'rect', stroke: 'white', strokeWidth: 2, cornerRadius: 3 },
        encoding: {
          color: {
            field: 'accuracy',
            type: 'quantitative',
            legend: null,
            // The same scale in every plot: darker is better, from 0 to 100 %.
            scale: { scheme: 'blues', domain: [-5, 110] },
          },
        },
      },
      {
        mark: { type: 'text', fontSize: 12, font: FONT },
        encoding: {
          text: { field: 'accuracy', type: 'quantitative', format: '.1f' },
          color: { condition: { test: 'datum.accuracy > 60', value: 'white' }, value: INK },
        },
      },
    ],
  } as TopLevelSpec;
}
