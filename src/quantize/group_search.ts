// AWQ on linear layers that belong together: scales where something before can take them up, then clipped ranges and error
// feedback. The search itself is the decoder's; here the layers are any, and all rows count alike. Knows no architecture.
// Source: AWQ (arXiv 2306.00978).

import { clipMatrix } from './clip_search';
import { feedbackRound } from './feedback';
import { addToGram, emptyGram, type Gram } from './gram';
import type { GroupError } from './quantize_layer';
import { dequantizeMatrix, type Matrix, type QuantizedMatrix, quantizeMatrix, type RoundOptions } from './round';
import { divideRows, scaleColumns, searchScale } from './scale_search';

/** What a search knows of the inputs of some linear layers. */
export interface InputStatistics {
  /** Mean |x| per channel. */
  readonly meanAbs: Float64Array;
  readonly gram: Gram;
}

export interface InputCollector {
  /** Rows, f32 [t, width]. */
  see(rows: Float32Array): void;
  finish(): InputStatistics;
}

/** Collects the statistics of inputs [total, width], part by part. */
export function collectInputs(width: number, group: number, total: number): InputCollector {
  const sums = new Float64Array(width);
  const gram = emptyGram(width, group);
  return {
    see: (rows) => {
      for (let i = 0; i < rows.length; i += width)
        for (let c = 0; c < width; c++) sums[c] = (sums[c] as number) + Math.abs(rows[i + c] as number);
      addToGram(gram, rows, new Float32Array(rows.length / width).fill(1 / total));
    },
    finish: () => ({ meanAbs: sums.map((sum) => sum / total), gram }),
  };
}

/** A linear layer: the group whose scales its columns are multiplied by, and the one whose scales its rows are divided by. */
export interface SearchedLinear<Site extends string> {
  readonly matrix: Matrix;
  readonly input: Site;
  readonly output?: Site;
}

/** Linear layers that share an input. */
export interface SearchedGroup<Site extends string, Name extends string> {
  readonly site: Site;
  readonly linears: readonly Name[];
  /** Whether a norm or a linear layer before can be divided by the scales; without, there are none. */
  readonly scaled: boolean;
  readonly isClipped: (name: Name) => boolean;
  readonly statistics: InputStatistics;
  /** NMSE of the inspected output when the group's matrices are replaced, in their order. */
  readonly loss: (replaced: readonly Matrix[]) => number;
}

export interface SearchContext {
  readonly round: RoundOptions;
  readonly feedback: boolean;
  readonly breathe: () => Promise<void>;
}

export interface SearchedLayers<Site extends string, Name extends string> {
  readonly linears: Record<Name, QuantizedMatrix>;
  /** What each group's input is to be divided by. */
  readonly scales: Readonly<Partial<Record<Site, Float32Array>>>;
  readonly errors: readonly GroupError[];
}

/** All groups are searched on the original weights, then applied together, then ranges are clipped. */
export async function searchGroups<Site extends string, Name extends string>(
  linears: Readonly<Record<Name, SearchedLinear<Site>>>,
  groups: readonly SearchedGroup<Site, Name>[],
  { round, feedback, breathe }: SearchContext,
): Promise<SearchedLayers<Site, Name>> {
  const scales: Partial<Record<Site, Float32Array>> = {};
  const found: { rtn: number; ratio: number | undefined }[] = [];
  for (const { site, linears: names, scaled, statistics, loss } of groups) {
    const matrices = names.map((name) => linears[name].matrix);
    if (scaled) {
      const search = { meanAbs: statistics.meanAbs, round, loss, breathe };
      const { scale, ratio, plainLoss } = await searchScale(matrices, search);
      if (ratio !== undefined) scales[site] = scale;
      found.push({ rtn: plainLoss, ratio });
    } else {
      const rtn = loss(matrices.map((matrix) => dequantizeMatrix(quantizeMatrix(matrix, round))));
      found.push({ rtn, ratio: undefined });
    }
  }
  const names = Object.keys(linears) as Name[];
  const each = <T>(make: (name: Name) => T) =>
    Object.fromEntries(names.map((name) => [name, make(name)])) as Record<Name, T>;
  const applied = each((name) => scaledMatrix(linears[name], scales));
  const quantized = each((name) => quantizeMatrix(applied[name], round));
  const errors: GroupError[] = [];
  for (const [i, group] of groups.entries()) {
    const meant = (name: Name): Matrix => unscaled(dequantizeMatrix(quantized[name]), linears[name], scales);
    const measure = (): number => group.loss(group.linears.map(meant));
    const s = scales[group.site] ?? new Float32Array(group.statistics.gram.width).fill(1);
    const chosen = await refine(group, applied, quantized, measure, s, { round, feedback, breathe });
    errors.push({ group: group.site, rtn: found[i]?.rtn ?? 0, chosen, ratio: found[i]?.ratio ?? null });
  }
  return { linears: quantized, scales, errors };
}

/**
 * Clips ranges and rounds with feedback, matrix by matrix, keeping each where `measure` is less. Changes `quantized`; returns what is
 * left.
 * @param s what the inputs are divided by
 */
async function refine<Site extends string, Name extends string>(
  { linears, isClipped, statistics: { gram } }: SearchedGroup<Site, Name>,
  applied: Readonly<Record<Name, Matrix>>,
  quantized: Record<Name, QuantizedMatrix>,
  measure: () => number,
  s: Float32Array,
  { round, feedback, breathe }: SearchContext,
): Promise<number> {
  let least = measure();
  const attempt = (name: Name, candidate: QuantizedMatrix): void => {
    const before = quantized[name];
    quantized[name] = candidate;
    const after = measure();
    if (after < least) least = after;
    else quantized[name] = before;
  };
  for (const name of linears) {
    if (isClipped(name)) attempt(name, quantizeMatrix(await clipMatrix(applied[name], gram, s, round, breathe), round));
    if (feedback) attempt(name, await feedbackRound(applied[name], quantized[name], gram, s, breathe));
  }
  return least;
}

type Scales<Site extends string> = Readonly<Partial<Record<Site, Float32Array>>>;

/** diag(1 / s_output) W diag(s_input) */
function scaledMatrix<Site extends string>(
  { matrix, input, output }: SearchedLinear<Site>,
  scales: Scales<Site>,
): Matrix {
  const [columns, rows] = [scales[input], output && scales[output]];
  const wide = columns === undefined ? matrix : scaleColumns(matrix, columns);
  return rows === undefined ? wide : divideRows(wide, rows);
}

/** What a scaled matrix stands for in terms of unscaled inputs and outputs. */
function unscaled<Site extends string>(
  matrix: Matrix,
  { input, output }: SearchedLinear<Site>,
  scales: Scales<Site>,
): Matrix {
  const [columns, rows] = [scales[input], output && scales[output]];
  const narrow = columns === undefined ? matrix : scaleColumns(matrix, columns, true);
  return rows === undefined
    ? narrow
    : divideRows(
        narrow,
        rows.map((s) => 1 / s),
      );
}

/** Sum of squared differences to `target` over the sum of its squares, over all parts together. */
export function outputError(outputs: readonly Float32Array[], targets: readonly Float32Array[]): number {
  let [error, size] = [0, 0];
  for (const [part, target] of targets.entries()) {
    const output = outputs[part] ?? new Float32Array();
    for (let i = 0; i < target.length; i++) {
      const value = target[i] as number;
      error += (value - (output[i] as number)) ** 2;
      size += value ** 2;
    }
  }
  return size === 0 ? 0 : error / size;
}
