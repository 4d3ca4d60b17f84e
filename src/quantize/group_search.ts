// AWQ on linear layers that belong together: scales where something before can take them up, then clipped ranges and error
// feedback. The search itself is the decoder's; here the layers are any, and all rows count alike. Knows no architecture.
// Source: AWQ (arXiv 2306.00978).

import { clipLimits, feedbackRound, quantizeMatrix, type Scaling } from '../ops/quantize';
import { addToGram, emptyGram, type Gram, gramsOf } from './gram';
import type { GroupError } from './quantize_layer';
import { dequantizeMatrix, type Matrix, type QuantizedMatrix, type RoundOptions } from './round';
import { searchScale } from './scale_search';

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
    const rounded = (columns?: Float32Array): number =>
      loss(matrices.map((matrix) => unscaled(quantizeMatrix(matrix, round, { columns }), { columns })));
    if (scaled) {
      const search = { meanAbs: statistics.meanAbs, group: round.group, loss: rounded, breathe };
      const { scale, ratio, plainLoss } = await searchScale(matrices, search);
      if (ratio !== undefined) scales[site] = scale;
      found.push({ rtn: plainLoss, ratio });
    } else found.push({ rtn: rounded(), ratio: undefined });
  }
  const names = Object.keys(linears) as Name[];
  const scaling = ({ input, output }: SearchedLinear<Site>): Scaling => ({
    columns: scales[input],
    rows: output && scales[output],
  });
  const made = names.map((name) => [name, quantizeMatrix(linears[name].matrix, round, scaling(linears[name]))]);
  const quantized = Object.fromEntries(made) as Record<Name, QuantizedMatrix>;
  const errors: GroupError[] = [];
  for (const [i, group] of groups.entries()) {
    const meant = (name: Name): Matrix => unscaled(quantized[name], scaling(linears[name]));
    const judged = {
      matrix: (name: Name): Matrix => linears[name].matrix,
      scaling: (name: Name): Scaling => scaling(linears[name]),
      measure: (): number => group.loss(group.linears.map(meant)),
    };
    const chosen = await refine(group, quantized, judged, { round, feedback, breathe });
    errors.push({ group: group.site, rtn: found[i]?.rtn ?? 0, chosen, ratio: found[i]?.ratio ?? null });
  }
  return { linears: quantized, scales, errors };
}

/** A group's matrices, what they are scaled by, and the loss of what is rounded now. */
interface Judged<Name> {
  matrix(name: Name): Matrix;
  scaling(name: Name): Scaling;
  measure(): number;
}

/**
 * Clips ranges and rounds with feedback, matrix by matrix, keeping each where `measure` is less. Changes `quantized`; returns what is
 * left.
 */
async function refine<Site extends string, Name extends string>(
  { linears, isClipped, statistics: { gram } }: SearchedGroup<Site, Name>,
  quantized: Record<Name, QuantizedMatrix>,
  { matrix, scaling, measure }: Judged<Name>,
  { round, feedback, breathe }: SearchContext,
): Promise<number> {
  let least = measure();
  const attempt = async (name: Name, candidate: QuantizedMatrix): Promise<void> => {
    const before = quantized[name];
    quantized[name] = candidate;
    const after = measure();
    if (after < least) least = after;
    else quantized[name] = before;
    await breathe();
  };
  for (const name of linears) {
    const [w, by] = [matrix(name), scaling(name)];
    const s = by.columns ?? new Float32Array(gram.width).fill(1);
    if (isClipped(name)) {
      const limits = clipLimits(w, round, by, gramsOf(gram, s, round.group));
      await attempt(name, quantizeMatrix(w, round, by, limits));
    }
    if (!feedback) continue;
    const grams = gramsOf(gram, s, gram.block);
    await attempt(name, feedbackRound(w, quantized[name], by, gram.block, grams));
  }
  return least;
}

/** What a quantised matrix stands for in terms of unscaled inputs and outputs: w rows[output] / columns[input]. */
function unscaled(quantized: QuantizedMatrix, { columns, rows: multipliers }: Scaling): Matrix {
  const { rows, cols, values } = dequantizeMatrix(quantized);
  for (let row = 0, i = 0; row < rows; row++) {
    const multiplier = multipliers?.[row] ?? 1;
    for (let c = 0; c < cols; c++, i++) values[i] = ((values[i] as number) * multiplier) / (columns?.[c] ?? 1);
  }
  return { rows, cols, values };
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
