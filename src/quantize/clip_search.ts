// AWQ's search for tighter ranges: per row and group, shrinking the largest magnitude in ten steps, whichever leaves the group's
// partial products least wrong, measured by the group's Gram matrix over all calibration rows.
// Source: llm-awq `awq/quantize/auto_clip.py` (there: partial products of up to 512 rows).

import { linear } from '../ops/linear';
import { float32, floats } from '../ops/run';
import { type PackedMatrix, packArrays } from '../ops/weights';
import { type Gram, gramOf } from './gram';
import { type Matrix, type RoundOptions, roundMatrix } from './round';

const { abs, floor, max, min } = Math;
const STEPS = 10;
const SHRINK_GRID = 20;

/**
 * The matrix with each group's values clamped to the range that rounds best.
 * @param matrix already scaled
 * @param inputs of its inputs before scaling, with `s` what they are divided by
 */
export async function clipMatrix(
  matrix: Matrix,
  inputs: Gram,
  s: Float32Array,
  options: RoundOptions,
  breathe: () => Promise<void>,
): Promise<Matrix> {
  const clipped = { ...matrix, values: matrix.values.slice() };
  for (let begin = 0; begin < matrix.cols; begin += options.group) {
    const end = min(matrix.cols, begin + options.group);
    const products = packArrays([gramOf(inputs, s, begin, end)], end - begin);
    try {
      clipColumns(clipped, begin, end, products, options);
    } finally {
      products.tensor.dispose();
    }
    await breathe();
  }
  return clipped;
}

/** Clamps columns begin .. end - 1 of all rows in place. */
function clipColumns(matrix: Matrix, begin: number, end: number, products: PackedMatrix, options: RoundOptions): void {
  const { rows, cols, values } = matrix;
  const width = end - begin;
  const part = new Float32Array(rows * width);
  const tops = new Float32Array(rows);
  for (let row = 0; row < rows; row++)
    for (let c = 0; c < width; c++) {
      const w = values[row * cols + begin + c] as number;
      part[row * width + c] = w;
      tops[row] = max(tops[row] as number, abs(w));
    }
  const best = new Float64Array(rows).fill(Number.POSITIVE_INFINITY);
  const limits = tops.slice();
  for (let step = 0; step < STEPS; step++) {
    const keep = 1 - step / SHRINK_GRID;
    const errors = roundingErrors(clamp(part, width, tops, keep), part, width, products, options);
    for (let row = 0; row < rows; row++)
      if ((errors[row] as number) < (best[row] as number)) {
        best[row] = errors[row] as number;
        limits[row] = (tops[row] as number) * keep;
      }
  }
  for (let row = 0; row < rows; row++)
    for (let c = begin; c < end; c++) {
      const [at, limit] = [row * cols + c, limits[row] as number];
      values[at] = min(limit, max(-limit, values[at] as number));
    }
}

function clamp(part: Float32Array, width: number, tops: Float32Array, keep: number): Float32Array {
  return part.map((w, i) => {
    const limit = (tops[floor(i / width)] as number) * keep;
    return min(limit, max(-limit, w));
  });
}

/** d^T H d per row, where d is what rounding `clamped` leaves of `part`. */
function roundingErrors(
  clamped: Float32Array,
  part: Float32Array,
  width: number,
  products: PackedMatrix,
  options: RoundOptions,
): Float64Array {
  const rows = part.length / width;
  const { values } = roundMatrix({ rows, cols: width, values: clamped }, options);
  for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) - (part[i] as number);
  const [input, none] = [float32(values, [rows, width]), float32([], [0])];
  const product = linear(input, products, none);
  const weighed = floats(product);
  const errors = new Float64Array(rows);
  for (let i = 0; i < values.length; i++) {
    const row = floor(i / width);
    errors[row] = (errors[row] as number) + (values[i] as number) * (weighed[i] as number);
  }
  for (const tensor of [input, none, product]) tensor.dispose();
  return errors;
}
