// The plots of films: accuracy against their length, and where in a film of which length an answer is found (as V-NIAH shows it, Zhang et al.,
// arXiv 2406.16852). A panel for each setting.

import type { TopLevelSpec } from 'vega-lite' with { 'resolution-mode': 'import' };
import { CONFIG, FAINT, FONT, HIGHLIGHT, INK, isHighlighted, settingOf } from './plot_labels';
import { type MethodSummary, PLACES } from './summary';
import { byAccuracy } from './table';

const COLUMNS = 5;
const OTHER = '#2f6690';

interface Panel {
  readonly setting: string;
  readonly isOurs: boolean;
  readonly row: MethodSummary;
}

function panelsOf(rows: readonly MethodSummary[]): Panel[] {
  return byAccuracy(rows).map((row) => ({ row, setting: settingOf(row), isOurs: isHighlighted(row) }));
}

const titleOf = ({ setting, isOurs }: Panel) => ({
  ...{ text: setting, fontSize: 12, anchor: 'start', frame: 'group', offset: 6 },
  color: isOurs ? HIGHLIGHT : INK,
});

/** A curve for each setting over those of the others. */
export function lengthPlot(rows: readonly MethodSummary[], subtitle: readonly string[]): TopLevelSpec {
  const panels = panelsOf(rows);
  const points = panels.flatMap(({ row, setting }) =>
    (row.films ?? []).map(({ frames, accuracy }) => ({ setting, frames, accuracy: accuracy * 100 })),
  );
  const longest = Math.max(...points.map(({ frames }) => frames));
  const x = {
    field: 'frames',
    type: 'quantitative',
    title: 'frames',
    scale: { domain: [0, longest * 1.05], nice: false },
    axis: { tickCount: 5, titleColor: FAINT },
  };
  const y = {
    field: 'accuracy',
    type: 'quantitative',
    title: null,
    scale: { domain: [0, 108], nice: false },
    axis: { values: [0, 25, 50, 75, 100] },
  };
  const concat = panels.map((panel) => {
    const color = panel.isOurs ? HIGHLIGHT : OTHER;
    const own = points.filter(({ setting }) => setting === panel.setting);
    const others = points.filter(({ setting }) => setting !== panel.setting);
    return {
      title: titleOf(panel),
      ...{ width: 150, height: 112 },
      layer: [
        {
          data: { values: others },
          mark: { type: 'line', strokeWidth: 1, color: '#d5d8dd' },
          encoding: { x, y, detail: { field: 'setting' } },
        },
        { data: { values: own }, mark: { type: 'line', strokeWidth: 2, color }, encoding: { x, y } },
        {
          data: { values: own },
          mark: { type: 'point', filled: true, size: 60, opacity: 1, color },
          encoding: { x, y },
        },
      ],
    };
  });
  const title = {
    text: 'How many answers are right (%), by the number of frames of the film?',
    subtitle: [...subtitle],
  };
  return { title, config: CONFIG, columns: COLUMNS, spacing: { row: 26, column: 22 }, concat } as TopLevelSpec;
}

/** A grid of cells for each setting: a column for each length, a row for each part of the film. */
export function needlesPlot(rows: readonly MethodSummary[], subtitle: readonly string[]): TopLevelSpec {
  const places = Array.from({ length: PLACES }, (_, i) => `${(100 * i) / PLACES}-${(100 * (i + 1)) / PLACES} %`);
  const x = {
    field: 'frames',
    type: 'ordinal',
    title: 'frames',
    axis: { labelAngle: 0, domain: false, ticks: false, titleColor: FAINT },
  };
  const y = { field: 'place', type: 'ordinal', title: null, sort: places, axis: { domain: false, ticks: false } };
  const color = {
    field: 'accuracy',
    type: 'quantitative',
    legend: null,
    scale: { scheme: 'blues', domain: [-5, 110] },
  };
  const text = {
    text: { field: 'accuracy', type: 'quantitative', format: '.0f' },
    color: { condition: { test: 'datum.accuracy > 60', value: 'white' }, value: INK },
  };
  const concat = panelsOf(rows).map((panel) => ({
    title: titleOf(panel),
    ...{ width: { step: 40 }, height: { step: 24 } },
    data: {
      values: (panel.row.films ?? []).flatMap(({ frames, accuracyByPlace }) =>
        accuracyByPlace.flatMap((accuracy, i) =>
          accuracy === null ? [] : [{ frames, place: places[i], accuracy: accuracy * 100 }],
        ),
      ),
    },
    encoding: { x, y },
    layer: [
      { mark: { type: 'rect', stroke: 'white', strokeWidth: 2 }, encoding: { color } },
      { mark: { type: 'text', fontSize: 11, font: FONT }, encoding: text },
    ],
  }));
  const title = {
    text: 'How many answers are right (%), by the length of the film and the place of the only frame that shows them?',
    subtitle: [...subtitle, 'Rows: the place in the film, from its beginning. Columns: the number of frames.'],
  };
  return { title, config: CONFIG, columns: COLUMNS, spacing: { row: 26, column: 22 }, concat } as TopLevelSpec;
}
