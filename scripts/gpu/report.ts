// Makes the table of docs/gpu.md from the results of scripts/gpu/first.sh and run.sh, of one or more runs; a later file's step replaces
// an earlier one's:
//
//   node dist/scripts/gpu/report.js gpu-first.json [gpu-run.json ...]            prints it
//   node dist/scripts/gpu/report.js gpu-first.json [gpu-run.json ...] --write    puts it into docs/gpu.md

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageFolder } from '../../src/runtime/paths';
import { FIGURES, type Figure } from './figures';

const PAGE = join(packageFolder(), 'docs/gpu.md');
const [BEGIN, END] = ['<!-- figures: scripts/gpu/report.ts -->', '<!-- /figures -->'];
/** A measured value that is off from its prediction by this factor is marked. */
const MISS = 1.5;

/** What a run wrote. A step that was left out has no code. */
export interface Run {
  readonly device: string;
  readonly commit: string;
  readonly date: string;
  readonly steps: readonly {
    readonly step: string;
    readonly code: number | null;
    readonly seconds: number;
    readonly result: unknown;
  }[];
}

function member(value: unknown, name: string): unknown {
  if (!Array.isArray(value)) return (value as Record<string, unknown> | null | undefined)?.[name];
  const [visual, share] = name.split(',').map((part) => Number(part.split('=')[1]));
  return (value as { visual?: number; share?: number }[]).find((one) => one.visual === visual && one.share === share);
}

/** The figure's value in the steps; undefined if its step did not run or failed before it. */
function measuredValue({ path }: Figure, steps: ReadonlyMap<string, unknown>): number | undefined {
  const [step = '', ...members] = path;
  const value = members.reduce(member, steps.get(step));
  return typeof value === 'number' ? value : undefined;
}

function text(value: number | undefined, unit: string): string {
  if (value === undefined) return '';
  if (unit === '%') return `${(100 * value).toFixed(0)} %`;
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
}

function barOf({ least, most, unit }: Figure, value: number | undefined): string {
  const bar = least === undefined ? most : least;
  if (bar === undefined) return '';
  const isMet = value !== undefined && (least === undefined ? value <= bar : value >= bar);
  return `${least === undefined ? '≤' : '≥'} ${text(bar, unit)}${value === undefined ? '' : isMet ? ', met' : ', missed'}`;
}

/** The lines of the table, and above it which runs it is of and which of their steps failed. */
export function table(runs: readonly Run[]): string[] {
  const steps = new Map(runs.flatMap((run) => run.steps.map((one) => [one.step, one] as const)));
  const results = new Map([...steps].map(([name, { result }]) => [name, result]));
  const gpu = results.get('smi') as { name?: string; driver?: string; maxSmMHz?: string } | null | undefined;
  const bad = [...steps.values()].filter(({ code }) => code !== 0);
  const rows = FIGURES.map((figure) => {
    const value = measuredValue(figure, results);
    const { predicted, unit } = figure;
    const ratio = value === undefined || predicted === undefined ? 1 : Math.max(value / predicted, predicted / value);
    const measured = value === undefined ? 'not measured' : text(value, unit);
    return [
      figure.name,
      text(predicted, unit),
      ratio > MISS ? `${measured} (${ratio.toFixed(1)}x off)` : measured,
      barOf(figure, value),
    ];
  });
  return [
    `${gpu?.name ?? runs[0]?.device ?? 'no GPU'}, driver ${gpu?.driver ?? 'unknown'}, ${runs.map(({ date, commit }) => `${date} at ${commit}`).join(' and ')}. ` +
      `Steps that ended well: ${
        [...steps.values()]
          .filter(({ code }) => code === 0)
          .map(({ step }) => step)
          .join(', ') || 'none'
      }; ` +
      `failed or left out: ${bad.map(({ step, code }) => `${step} (${code ?? 'left out'})`).join(', ') || 'none'}.`,
    '',
    '| figure | predicted | measured | bar |',
    '| --- | --- | --- | --- |',
    ...rows.map((cells) => `| ${cells.join(' | ')} |`),
  ];
}

/** The page with the table in the place of the last one. Throws if the page has no place for it. */
export function withTable(page: string, lines: readonly string[]): string {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`Expected ${BEGIN} … ${END} in the page but found neither.`);
  return `${page.slice(0, begin + BEGIN.length)}\n\n${lines.join('\n')}\n\n${page.slice(end)}`;
}

function main(): void {
  const files = process.argv.slice(2).filter((argument) => argument !== '--write');
  if (files.length === 0) throw new Error('Expected the JSON of a run: node dist/scripts/gpu/report.js gpu-first.json');
  const lines = table(files.map((file) => JSON.parse(readFileSync(file, 'utf8')) as Run));
  process.stdout.write(`${lines.join('\n')}\n`);
  if (process.argv.includes('--write')) writeFileSync(PAGE, withTable(readFileSync(PAGE, 'utf8'), lines));
}

if (require.main === module) main();
