// AWQ's search for per-channel scales: weights times s, their input divided by s, so that rounding affects the channels that
// matter less. Source: AWQ (arXiv 2306.00978, section 3.2), AutoAWQ `awq/quantize/quantizer.py` (duo scaling).

import type { Matrix } from '../checkpoint/round';

const { abs, max, min, sqrt } = Math;

/** Points of the grid: exponents i / 20. */
export const GRID = 20;
const SMALLEST_SCALE = 1e-4;

/** Mean over all rows of |w| / (max |w| of its quantization group), per input channel of matrices that share an input. */
export function meanShare(matrices: readonly Matrix[], group: number): Float64Array {
  const cols = matrices[0]?.cols ?? 0;
  const sums = new Float64Array(cols);
  for (const { rows, values } of matrices)
    for (let row = 0, at = 0; row < rows; row++, at += cols)
      for (let begin = 0; begin < cols; begin += group) {
        const end = min(cols, begin + group);
        let top = 0;
        for (let c = begin; c < end; c++) top = max(top, abs(values[at + c] as number));
        for (let c = begin; c < end; c++) sums[c] = (sums[c] as number) + abs(values[at + c] as number) / (top + 1e-6);
      }
  const rows = matrices.reduce((sum, matrix) => sum + matrix.rows, 0);
  return sums.map((sum) => sum / rows);
}

/**
 * s = max(x^r / (w^(1 - r) + 1e-4), 1e-4), divided by sqrt(max s · min s); values that are not finite become 1.
 * @param meanAbs mean |x| per channel
 * @param share as `meanShare`
 */
export function candidateScale(meanAbs: Float64Array, share: Float64Array, ratio: number): Float32Array {
  const raw = meanAbs.map((x, c) => max(x ** ratio / ((share[c] as number) ** (1 - ratio) + 1e-4), SMALLEST_SCALE));
  const finite = raw.filter(Number.isFinite);
  const middle = sqrt(
    finite.reduce((a, b) => max(a, b), SMALLEST_SCALE) * finite.reduce((a, b) => min(a, b), Number.POSITIVE_INFINITY),
  );
  return Float32Array.from(raw, (s) => {
    const scale = Math.fround(s / middle);
    return Number.isFinite(scale) && scale > 0 ? scale : 1;
  });
}

export interface ScaleSearch {
  readonly scale: Float32Array;
  /** Exponent of the best scales; undefined if no scaling was best. */
  readonly ratio: number | undefined;
  readonly loss: number;
  /** Loss of rounding to nearest without scales. */
  readonly plainLoss: number;
}

export interface ScaleSearchOptions {
  /** mean |x| per channel */
  readonly meanAbs: Float64Array;
  /** Makes channels that must share a scale equal. */
  readonly tie?: ((values: Float64Array) => Float64Array) | undefined;
  /** Inputs that share a scale. */
  readonly group: number;
  /** The loss in the inspected module's output after rounding the matrices with scales `s`. */
  readonly loss: (s: Float32Array) => number;
  readonly pace: () => Promise<void>;
}

/**
 * Tries the 20 candidates, and no scaling at all (as llm-compressor does), and returns the one with the least loss.
 * @param matrices that share the input
 */
export async function searchScale(matrices: readonly Matrix[], options: ScaleSearchOptions): Promise<ScaleSearch> {
  const { group, loss, pace, tie = (values) => values } = options;
  const meanAbs = tie(options.meanAbs);
  const share = tie(meanShare(matrices, group));
  const ones = new Float32Array(meanAbs.length).fill(1);
  const plainLoss = loss(ones);
  let best: Omit<ScaleSearch, 'plainLoss'> = { scale: ones, ratio: undefined, loss: plainLoss };
  for (let i = 0; i < GRID; i++) {
    await pace();
    const scale = candidateScale(meanAbs, share, i / GRID);
    const found = loss(scale);
    if (found < best.loss) best = { scale, ratio: i / GRID, loss: found };
  }
  return { ...best, plainLoss };
}
