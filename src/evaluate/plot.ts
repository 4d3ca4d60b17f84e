// The plots of an evaluation: accuracy against visual tokens for each setting, and accuracy by turn. Vega-Lite draws SVG, sharp converts it
// to PNG at twice the resolution.

import { join } from 'node:path';
import type { TopLevelSpec } from 'vega-lite' with { 'resolution-mode': 'import' };
import { loadFonts } from '../image/fonts';
import { sharp } from '../image/sharp';
import { replaceFile } from '../runtime/atomic';
import { packageFolder } from '../runtime/paths';
import { curvesPlot } from './plot_curves';
import { lengthPlot, needlesPlot } from './plot_films';
import { lineOf } from './plot_labels';
import { settingsPlot } from './plot_settings';
import { turnsPlot } from './plot_turns';
import type { MethodSummary } from './summary';

/** Pixels of PNG per unit of SVG. */
const SCALE = 2;

/**
 * Writes `accuracy-by-tokens` and `accuracy-by-turn`, and for films `accuracy-by-length` (of several lengths) and `accuracy-by-place`, each
 * as .svg and .png; returns the paths.
 */
export async function writePlots(
  folder: string,
  rows: readonly MethodSummary[],
  subtitle: readonly string[],
): Promise<string[]> {
  const files: string[] = [];
  for (const [name, spec] of [
    ['accuracy-by-tokens', tokensPlot(rows, subtitle)],
    ['accuracy-by-turn', turnsPlot(rows, subtitle)],
    ...filmPlots(rows, subtitle),
  ] as const) {
    const svg = await renderSvg(spec);
    await loadFonts(packageFolder());
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

export function filmPlots(
  rows: readonly MethodSummary[],
  subtitle: readonly string[],
): (readonly [string, TopLevelSpec])[] {
  const lengths = rows[0]?.films?.length ?? 0;
  if (lengths === 0) return [];
  const places = ['accuracy-by-place', needlesPlot(rows, subtitle)] as const;
  return lengths === 1 ? [places] : [['accuracy-by-length', lengthPlot(rows, subtitle)], places];
}

/** A row for each setting; or a panel for each method if one of them was run at several ratios. */
export function tokensPlot(rows: readonly MethodSummary[], subtitle: readonly string[]): TopLevelSpec {
  const lines = rows.filter(({ method }) => method !== 'dense').map(lineOf);
  const hasCurves = new Set(lines).size < lines.length;
  return hasCurves ? curvesPlot(rows, subtitle) : settingsPlot(rows, subtitle);
}

export async function renderSvg(spec: TopLevelSpec): Promise<string> {
  // ES modules, which a CommonJS module can load only by `import()`.
  const [{ compile }, { parse, View }] = await Promise.all([import('vega-lite'), import('vega')]);
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
