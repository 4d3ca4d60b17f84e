// What 4-bit matrices stand for, and the arithmetic that rounding in other folders shares. Rounding itself is src/ops/quantize.ts:
// what AWQ calls pseudo-quantisation, with the scale rounded to the binary16 it is stored as, so that what a search measures is what a
// checkpoint holds. Source: AWQ (arXiv 2306.00978), llm-awq `pseudo_quantize_tensor`.

import type { Matrix, QuantizedMatrix } from '../ops/quantize';

export type { Matrix, QuantizedMatrix, RoundOptions } from '../ops/quantize';

const { min } = Math;

/** From here on doubles are whole: adding it rounds. */
const WHOLE = 1.5 * 2 ** 52;

/** Nearest integer, ties to even, as torch rounds; |x| < 2^51. */
export const roundEven = (x: number): number => x + WHOLE - WHOLE;

/** Visits every group of a matrix: its index, and where its values begin and end. */
export function eachGroup(
  rows: number,
  cols: number,
  group: number,
  visit: (index: number, begin: number, end: number) => void,
): void {
  let index = 0;
  for (let row = 0; row < rows; row++)
    for (let col = 0; col < cols; col += group) visit(index++, row * cols + col, row * cols + min(cols, col + group));
}

/** The matrix that a quantised one stands for. */
export function dequantizeMatrix({ rows, cols, group, q, scale, zero }: QuantizedMatrix): Matrix {
  const values = new Float32Array(rows * cols);
  eachGroup(rows, cols, group, (index, begin, end) => {
    const [s, z] = [scale[index] as number, zero[index] as number];
    for (let i = begin; i < end; i++) values[i] = ((q[i] as number) - z) * s;
  });
  return { rows, cols, values };
}
