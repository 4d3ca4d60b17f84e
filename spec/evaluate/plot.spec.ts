// The plots of an evaluation: their labels, and that no mark covers another.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import type { MethodSummary } from '../../src/evaluate/summary';

const PLOT = JSON.stringify(join(__dirname, '../../src/evaluate/plot.js'));

/** Calls a function of plot.ts in a separate process, because vega consists of ES modules, which jest does not import. */
function inProcess(call: string, ...given: readonly unknown[]): string {
  const script = `const plot = require(${PLOT}); const given = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
    Promise.resolve(${call}).then((result) => process.stdout.write(JSON.stringify(result)));`;
  const input = JSON.stringify(given);
  return JSON.parse(execFileSync(process.execPath, ['-e', script], { input, encoding: 'utf8' }));
}
const svgOf = (rows: readonly MethodSummary[], subtitle: readonly string[] = []): string =>
  inProcess('plot.renderSvg(plot.tokensPlot(...given))', rows, subtitle);

const TIMES = { image: 0, tower: 0, project: 0, retrieve: 0, prefill: 0, decode: 0, total: 0, conversation: 0 };
const row = (
  method: string,
  prefillSparsity: number,
  decodeSparsity: number,
  accuracy: number,
  active = 10,
): MethodSummary =>
  ({
    ...{ method, prefillSparsity, decodeSparsity, positions: 'original', accuracy, agreement: 1 },
    ...{ accuracyByTurn: [accuracy, accuracy], accuracyByKind: {}, ms: TIMES },
    ...{ activePrefill: 100 * (1 - prefillSparsity), activeDecode: active },
  }) as unknown as MethodSummary;
const DENSE = row('dense', 0, 0, 0.95, 100);
/** Three settings of the same accuracy and the same tokens: a scatter plot would show one mark. */
const SAME = ['sparsevila', 'quest', 'fastv'].map((method) => row(method, 0.6, 0.75, 0.5));

const textsOf = (svg: string): string[] =>
  [...svg.matchAll(/<(?:text|tspan)[^>]*>([^<]*)(?=<)/g)].map(([, text]) => text ?? '');
/** The positions of the marks in each panel. */
const marksOf = (svg: string): string[][] =>
  [...svg.matchAll(/aria-roledescription="symbol mark container"[^>]*>(.*?)<\/g>/gs)]
    .map(([, marks]) => [...(marks ?? '').matchAll(/transform="translate\(([^)]+)\)"/g)].map(([, at]) => at ?? ''))
    .filter((marks) => marks.length > 0);

describe('settings at one ratio each', () => {
  it('have one line each, and no mark covers another one', () => {
    const svg = svgOf([DENSE, ...SAME], ['8 questions']);
    const texts = textsOf(svg);
    for (const name of ['dense', 'sparsevila 0.6/0.75', 'quest 0.6/0.75', 'fastv 0.6/0.75']) {
      expect(texts.filter((text) => text === name)).toHaveLength(1);
    }
    const questions = svg.match(
      /How many answers are right\?|while it reads the question\?|while it writes the answer\?/g,
    );
    expect(new Set(questions).size).toBe(3);
    expect(texts).toEqual(
      expect.arrayContaining(['right answers (%)', 'visual tokens attended (mean)', '8 questions']),
    );
    const panels = marksOf(svg);
    expect(panels.map((marks) => marks.length)).toEqual([4, 4, 4]);
    for (const marks of panels) expect(new Set(marks).size).toBe(4);
  });

  it('write the number beside each mark', () => {
    const texts = textsOf(svgOf([DENSE, row('sparsevila', 0.6, 0.75, 0.875, 7.5)]));
    for (const number of ['95.0', '87.5', '100.0', '40.0', '7.5']) expect(texts).toContain(number);
  });
});

describe('methods at several ratios', () => {
  const rows = [DENSE, ...SAME, ...['sparsevila', 'quest', 'fastv'].map((method) => row(method, 0.8, 0.5, 0.4, 20))];

  it('have one panel per method for each of the two measures', () => {
    const svg = svgOf(rows);
    for (const method of ['sparsevila', 'quest', 'fastv']) {
      expect(textsOf(svg).filter((text) => text === method)).toHaveLength(2);
    }
    const panels = marksOf(svg);
    expect(panels.map((marks) => marks.length)).toEqual(Array(6).fill(2));
    expect(svg).toMatch(/while the answer is written\?/);
    expect(svg).toMatch(/while the question is read\?/);
  });
});

it('writes SVG and PNG, the PNG at twice the size', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'plots-'));
  try {
    const files = inProcess('plot.writePlots(...given)', folder, [DENSE, ...SAME], ['8 questions']);
    expect([...files].map((file) => file.slice(folder.length + 1))).toEqual([
      'accuracy-by-tokens.svg',
      'accuracy-by-tokens.png',
      'accuracy-by-turn.svg',
      'accuracy-by-turn.png',
    ]);
    for (const name of ['accuracy-by-tokens', 'accuracy-by-turn']) {
      const svg = readFileSync(join(folder, `${name}.svg`), 'utf8');
      const width = Number(/<svg[^>]* width="(\d+)"/.exec(svg)?.[1]);
      expect((await sharp(join(folder, `${name}.png`)).metadata()).width).toBe(2 * width);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe('films', () => {
  const films = [
    { frames: 8, accuracy: 0.9, accuracyByPlace: [1, 0.75, null, 0.5, 1] },
    { frames: 16, accuracy: 0.8, accuracyByPlace: [1, 1, 0.25, 1, 1] },
  ];
  const rows = [DENSE, row('sparsevila', 0.75, 0.9, 0.875, 7.5)].map((one) => ({ ...one, films }));

  it('have a cell for each length and place with questions, in a panel for each setting', () => {
    const texts = textsOf(inProcess('plot.renderSvg(plot.filmPlots(...given).at(-1)[1])', rows, []));
    for (const number of ['75', '50', '25']) expect(texts.filter((text) => text === number)).toHaveLength(2);
    expect(texts.filter((text) => text === '100')).toHaveLength(12);
    expect(texts).toEqual(expect.arrayContaining(['sparsevila 0.75/0.9', '0-20 %', '80-100 %']));
  });

  it('of several lengths have a curve for each setting', () => {
    const panels = marksOf(inProcess('plot.renderSvg(plot.filmPlots(...given)[0][1])', rows, []));
    expect(panels.map((marks) => marks.length)).toEqual([2, 2]);
    const one = rows.map((row) => ({ ...row, films: films.slice(1) }));
    expect(inProcess('plot.filmPlots(...given).map(([name]) => name)', one, [])).toEqual(['accuracy-by-place']);
  });
});
