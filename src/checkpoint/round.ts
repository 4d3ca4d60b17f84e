// Dequantization of 4-bit matrices, and arithmetic for rounding that other folders share. Rounding itself is src/ops/quantize.ts:
// AWQ's pseudo-quantization, with the scale rounded to its stored binary16 value, so that a search measures exactly what a
// checkpoint stores. Source: AWQ (arXiv 2306.00978), llm-awq `pseudo_quantize_tensor`.

import type { Matrix, QuantizedMatrix } from '../ops/quantize';

export type { Matrix, QuantizedMatrix, RoundOptions } from '../ops/quantize';

const { min } = Math;

/** Above this, doubles are integers: adding it rounds. */
const WHOLE = 1.5 * 2 ** 52;

/** Nearest integer, ties to even, as torch rounds; |x| < 2^51. */
export const roundEven = (x: number): number => x + WHOLE - WHOLE;

/** Visits every group of a matrix: its index, and the begin and end of its values. */
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

/** The dequantized matrix. */
export function dequantizeMatrix({ rows, cols, group, q, scale, zero }: QuantizedMatrix): Matrix {
  const values = new Float32Array(rows * cols);
  eachGroup(rows, cols, group, (index, begin, end) => {
    const [s, z] = [scale[index] as number, zero[index] as number];
    for (let i = begin; i < end; i++) values[i] = ((q[i] as number) - z) * s;
  });
  return { rows, cols, values };
}
