// Two pictures of the rows: accuracy against active visual tokens, and accuracy by turn. Vega-Lite draws SVG, sharp makes PNG of it.

import { join } from 'node:path';
import sharp from 'sharp';
import type { TopLevelSpec } from 'vega-lite' with { 'resolution-mode': 'import' };
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
export async function writePlots(folder: string, rows: readonly Row[], subtitle: string): Promise<string[]> {
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

/** `SparseVILA 60/75`, with what else tells rows apart. */
function labelOf({ method, prefillSparsity, decodeSparsity, positions, protocol }: Row): string {
  const ratios = method === 'dense' ? '' : ` ${percent(prefillSparsity)}/${percent(decodeSparsity)}`;
  return `${method}${ratios}${positions === 'compact' ? ', compact' : ''}${protocol === undefined ? '' : `, ${protocol}`}`;
}

/** A line per method over its ratios; dense as a level. */
function tokensPlot(rows: readonly Row[], subtitle: string): TopLevelSpec {
  const sparse = byAccuracy(rows).filter(({ method }) => method !== 'dense');
  const values = sparse.map((row) => ({
    line: labelOf({ ...row, prefillSparsity: 0, decodeSparsity: 0 }).replace(' 0/0', ''),
    label: labelOf(row),
    active: row.activeDecode,
    accuracy: row.accuracy * 100,
  }));
  const lines = [...new Set(values.map(({ line }) => line))];
  const dense = rows
    .filter(({ method }) => method === 'dense')
    .map((row) => ({ accuracy: row.accuracy * 100, label: labelOf(row) }));
  const x = {
    field: 'active',
    type: 'quantitative',
    title: 'visual tokens that an answer attends (mean over layers)',
    scale: { zero: true, nice: true },
  } as const;
  const y = {
    field: 'accuracy',
    type: 'quantitative',
    title: 'right answers, %',
    scale: { zero: false, nice: true },
  } as const;
  const color = {
    field: 'line',
    type: 'nominal',
    title: null,
    sort: lines,
    scale: { range: colorsOf(lines) },
  } as const;
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: { text: 'Accuracy against active visual tokens', subtitle },
    width: 620,
    height: 380,
    config: CONFIG,
    layer: [
      {
        data: { values: dense },
        layer: [
          { mark: { type: 'rule', strokeDash: [5, 4], color: '#444', strokeWidth: 1.2 }, encoding: { y } },
          {
            mark: { type: 'text', align: 'left', dx: 4, dy: -7, color: '#444', fontSize: 12, font: FONT },
            encoding: { y, x: { value: 0 }, text: { field: 'label' } },
          },
        ],
      },
      {
        data: { values },
        layer: [
          { mark: { type: 'line', strokeWidth: 1.6, opacity: 0.75 }, encoding: { x, y, color } },
          {
            mark: { type: 'point', filled: true, size: 80, opacity: 0.95 },
            encoding: {
              x,
              y,
              color,
              shape: { field: 'line', type: 'nominal', title: null, sort: lines },
              tooltip: { field: 'label' },
            },
          },
        ],
      },
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
function turnsPlot(rows: readonly Row[], subtitle: string): TopLevelSpec {
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
    sort: sorted.map(labelOf),
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
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title: { text: 'Right answers by turn, %', subtitle },
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
