// Two pictures of the rows: accuracy against active visual tokens, and accuracy by turn. Vega-Lite draws SVG, sharp makes PNG of it.

import { join } from 'node:path';
import type { TopLevelSpec } from 'vega-lite' with { 'resolution-mode': 'import' };
import { sharp } from '../image/sharp';
import { replaceFile } from './results_file';
import type { Row } from './rows';
import { percent } from './settings';
import { byAccuracy } from './table';

const FONT = 'DejaVu Sans, Helvetica, Arial, sans-serif';
const CONFIG = {
  background: 'white',
  font: FONT,
  padding: 16,
  title: { fontSize: 16, subtitleFontSize: 12, subtitleColor: '#555', anchor: 'start', offset: 14 },
  axis: {
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: 'normal',
    gridColor: '#eee',
    domainColor: '#999',
    tickColor: '#999',
  },
  legend: { labelFontSize: 12, titleFontSize: 12, labelLimit: 260, symbolSize: 90 },
  view: { stroke: null },
} as const;
/** Pixels of PNG per unit of SVG. */
const SCALE = 2;

/** Writes `accuracy-by-tokens` and `accuracy-by-turn`, each as .svg and .png; returns the paths. */
export async function writePlots(folder: string, rows: readonly Row[], subtitle: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  for (const [name, spec] of [
    ['accuracy-by-tokens', tokensPlot(rows, subtitle)],
    ['accuracy-by-turn', turnsPlot(rows, subtitle)],
  ] as const) {
    const svg = await renderSvg(spec);
    const png = await sharp(Buffer.from(svg), { density: 72 * SCALE })
      .png()
      .toBuffer();
    for (const [ending, content] of [
      ['svg', svg],
      ['png', png],
    ] as const) {
      files.push(join(folder, `${name}.${ending}`));
      replaceFile(join(folder, `${name}.${ending}`), content);
    }
  }
  return files;
}

async function renderSvg(spec: TopLevelSpec): Promise<string> {
  // ES modules, which a CommonJS module can only load like this.
  const [{ compile }, { parse, View }] = await Promise.all([import('vega-lite'), import('vega')]);
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

/** `sparsevila 60/75`, with what else tells rows apart. */
function labelOf({ method, prefillSparsity, decodeSparsity, positions, protocol }: Row, withRatios = true): string {
  const ratios = method === 'dense' || !withRatios ? '' : ` ${percent(prefillSparsity)}/${percent(decodeSparsity)}`;
  return `${method}${ratios}${positions === 'compact' ? ', compact' : ''}${protocol === undefined ? '' : `, ${protocol}`}`;
}

/** Two panels, over the tokens active at prefill and at decode: a line per method over its ratios, dense as a level. */
function tokensPlot(rows: readonly Row[], subtitle: readonly string[]): TopLevelSpec {
  const sparse = byAccuracy(rows).filter(({ method }) => method !== 'dense');
  const values = sparse.map((row) => ({
    line: labelOf(row, false),
    activePrefill: row.activePrefill,
    activeDecode: row.activeDecode,
    accuracy: row.accuracy * 100,
  }));
  const dense = rows
    .filter(({ method }) => method === 'dense')
    .map((row) => ({ accuracy: row.accuracy * 100, label: labelOf(row) }));
  const lines = [...new Set(values.map(({ line }) => line))];
  // The best is drawn last, over the others.
  values.reverse();
  const panel = (field: 'activePrefill' | 'activeDecode', title: string) => {
    const most = Math.max(...values.map((value) => value[field]));
    const x = {
      field,
      type: 'quantitative',
      title,
      scale: { domain: [0, most * 1.05], nice: false },
      axis: { tickCount: 6 },
    } as const;
    const y = {
      field: 'accuracy',
      type: 'quantitative',
      title: 'right answers, %',
      scale: { zero: false, padding: 8 },
    } as const;
    const byLine = { field: 'line', type: 'nominal', title: null, sort: lines } as const;
    const color = { ...byLine, scale: { range: colorsOf(lines) } };
    const level = { type: 'rule', strokeDash: [5, 4], color: '#444', strokeWidth: 1.2 } as const;
    const name = { type: 'text', align: 'left', baseline: 'bottom', dx: 4, dy: -2, color: '#444', font: FONT } as const;
    return {
      width: 380,
      height: 400,
      layer: [
        { data: { values: dense }, mark: level, encoding: { y } },
        { data: { values: dense }, mark: name, encoding: { y, x: { value: 0 }, text: { field: 'label' } } },
        { data: { values }, mark: { type: 'line', strokeWidth: 1.6, opacity: 0.7 }, encoding: { x, y, color } },
        {
          data: { values },
          mark: { type: 'point', filled: true, size: 90, opacity: 0.95 },
          encoding: { x, y, color, shape: byLine },
        },
      ],
    };
  };
  return {
    title: { text: 'Accuracy against active visual tokens', subtitle: [...subtitle] },
    config: CONFIG,
    spacing: 36,
    hconcat: [
      panel('activePrefill', 'visual tokens attended while the question is read'),
      panel('activeDecode', 'visual tokens attended while the answer is written'),
    ],
  } as TopLevelSpec;
}

/** SparseVILA stands out; the others take the rest of a palette in order. */
function colorsOf(lines: readonly string[]): string[] {
  const palette = [
    '#4c78a8',
    '#72b7b2',
    '#54a24b',
    '#eeca3b',
    '#b279a2',
    '#ff9da6',
    '#9d755d',
    '#bab0ac',
    '#1f77b4',
    '#17becf',
    '#8c564b',
    '#7f7f7f',
    '#bcbd22',
    '#e377c2',
    '#2ca02c',
    '#9467bd',
  ];
  let next = 0;
  return lines.map((line) =>
    line.startsWith('sparsevila') && line === lines.find((other) => other.startsWith('sparsevila'))
      ? '#e4572e'
      : (palette[next++ % palette.length] as string),
  );
}

/** A table of colours: a row per setting, a column per turn and one for all, the number in each cell. */
function turnsPlot(rows: readonly Row[], subtitle: readonly string[]): TopLevelSpec {
  const sorted = byAccuracy(rows);
  const values = sorted.flatMap((row) => [
    ...row.accuracyByTurn.map((accuracy, i) => ({
      setting: labelOf(row),
      turn: `turn ${i + 1}`,
      accuracy: accuracy * 100,
    })),
    { setting: labelOf(row), turn: 'all', accuracy: row.accuracy * 100 },
  ]);
  const turns = [...new Set(values.map(({ turn }) => turn))];
  const least = Math.min(...values.map(({ accuracy }) => accuracy));
  const y = {
    field: 'setting',
    type: 'nominal',
    title: null,
    sort: sorted.map((row) => labelOf(row)),
    axis: { domain: false, ticks: false, labelLimit: 300, labelPadding: 8 },
  } as const;
  const x = {
    field: 'turn',
    type: 'nominal',
    title: null,
    sort: turns,
    axis: { orient: 'top', domain: false, ticks: false, labelAngle: 0, labelPadding: 6 },
  } as const;
  const middle = least + (100 - least) * 0.55;
  return {
    title: { text: 'Right answers by turn, %', subtitle: [...subtitle] },
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
            scale: { scheme: 'yellowgreenblue', domain: [least - 10, 104] },
          },
        },
      },
      {
        mark: { type: 'text', fontSize: 12, font: FONT },
        encoding: {
          text: { field: 'accuracy', type: 'quantitative', format: '.1f' },
          color: { condition: { test: `datum.accuracy > ${middle}`, value: 'white' }, value: '#222' },
        },
      },
    ],
  } as TopLevelSpec;
}
