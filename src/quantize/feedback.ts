// Rounding with error feedback: what one weight loses is made up for by the next ones of its row, as far as their inputs move
// together. Scales and zero points are given; only which neighbour a weight is rounded to changes, so every format can hold it.
// Source: GPTQ (arXiv 2210.17323, sections 3.2 and 3.3), here within blocks of columns, so that no Gram matrix is larger than a block.

import { type Gram, gramOf } from './gram';
import { type Matrix, type QuantizedMatrix, roundEven } from './round';

const { floor, max, min, sqrt } = Math;
/** Share of the mean diagonal added to it, so that the inverse exists. */
const DAMPING = 0.01;

/**
 * Rounds `matrix` to the grid of `grid`: the same scales and zero points, other nibbles.
 * @param inputs of the matrix's inputs before scaling, with `s` what they are divided by
 */
export async function feedbackRound(
  matrix: Matrix,
  grid: QuantizedMatrix,
  inputs: Gram,
  s: Float32Array,
  breathe: () => Promise<void>,
): Promise<QuantizedMatrix> {
  const q = new Uint8Array(matrix.values.length);
  for (let begin = 0; begin < matrix.cols; begin += inputs.block) {
    const end = min(matrix.cols, begin + inputs.block);
    const factor = inverseFactor(gramOf(inputs, s, begin, end), end - begin);
    for (let row = 0; row < matrix.rows; row++) {
      roundRow(matrix, grid, row, begin, end, factor, q);
      if (row % 256 === 255) await breathe();
    }
  }
  return { ...grid, q };
}

function roundRow(
  { cols, values }: Matrix,
  { group, scale, zero }: QuantizedMatrix,
  row: number,
  begin: number,
  end: number,
  factor: Float64Array,
  q: Uint8Array,
): void {
  const width = end - begin;
  const groups = Math.ceil(cols / group);
  const w = Float64Array.from(values.subarray(row * cols + begin, row * cols + end));
  for (let j = 0; j < width; j++) {
    const index = row * groups + floor((begin + j) / group);
    const [step, middle] = [scale[index] as number, zero[index] as number];
    const nibble = min(15, max(0, roundEven((w[j] as number) / step) + middle));
    q[row * cols + begin + j] = nibble;
    const error = ((w[j] as number) - (nibble - middle) * step) / (factor[j * width + j] as number);
    for (let k = j + 1; k < width; k++) w[k] = (w[k] as number) - error * (factor[j * width + k] as number);
  }
}

/** The upper Cholesky factor U of the damped inverse: (H + λ I)^-1 = U^T U, row-major [n, n]. */
export function inverseFactor(products: Float32Array, n: number): Float64Array {
  let trace = 0;
  for (let i = 0; i < n; i++) trace += products[i * n + i] as number;
  const damping = max((DAMPING * trace) / n, Number.MIN_VALUE * 2 ** 60);
  const damped = Float64Array.from(products);
  for (let i = 0; i < n; i++) damped[i * n + i] = (damped[i * n + i] as number) + damping;
  // With H = L L^T, H^-1 = L^-T L^-1; its lower Cholesky factor transposed is U.
  const inverse = invertLower(cholesky(damped, n), n);
  const product = new Float64Array(n * n);
  for (let k = 0; k < n; k++)
    for (let i = 0; i <= k; i++) {
      const left = inverse[k * n + i] as number;
      for (let j = 0; j <= k; j++)
        product[i * n + j] = (product[i * n + j] as number) + left * (inverse[k * n + j] as number);
    }
  return transpose(cholesky(product, n), n);
}

/** L of A = L L^T, lower, row-major. */
function cholesky(a: Float64Array, n: number): Float64Array {
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j] as number;
      for (let k = 0; k < j; k++) sum -= (l[i * n + k] as number) * (l[j * n + k] as number);
      l[i * n + j] = i === j ? sqrt(max(sum, Number.MIN_VALUE)) : sum / (l[j * n + j] as number);
    }
  return l;
}

function invertLower(l: Float64Array, n: number): Float64Array {
  const inverse = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const diagonal = l[i * n + i] as number;
    for (let k = 0; k < i; k++) {
      const factor = l[i * n + k] as number;
      for (let j = 0; j <= k; j++)
        inverse[i * n + j] = (inverse[i * n + j] as number) - factor * (inverse[k * n + j] as number);
    }
    for (let j = 0; j < i; j++) inverse[i * n + j] = (inverse[i * n + j] as number) / diagonal;
    inverse[i * n + i] = 1 / diagonal;
  }
  return inverse;
}

function transpose(a: Float64Array, n: number): Float64Array {
  return a.map((_, i) => a[(i % n) * n + floor(i / n)] as number);
}
