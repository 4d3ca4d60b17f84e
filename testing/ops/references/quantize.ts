// Rounding, clipping and feedback written out plainly: the definitions that the ops of src/ops/quantize.ts are held to, bit for bit.
// Sources: AWQ (arXiv 2306.00978), llm-awq `pseudo_quantize_tensor` and `awq/quantize/auto_clip.py`; GPTQ (arXiv 2210.17323, sections
// 3.2 and 3.3).

import { roundToF16 } from '../../../src/checkpoint/half';
import { eachGroup, roundEven } from '../../../src/checkpoint/round';
import type { Matrix, QuantizedMatrix, RoundOptions, Scaling } from '../../../src/ops/quantize';

const { abs, ceil, floor, fround, max, min, sqrt } = Math;

/** Below this, a scale would not survive as a binary16 number. */
const SMALLEST_SCALE = 2 ** -24;
const SMALLEST_RANGE = 1e-5;

const clampNibble = (x: number): number => min(15, max(0, x));

/** Scale and zero point of values between `low` and `high`. The range need not contain 0. */
export function groupScale(low: number, high: number, symmetric: boolean): { scale: number; zero: number } {
  if (symmetric) {
    const scale = max(roundToF16(max(-low, high, SMALLEST_RANGE) / 7), SMALLEST_SCALE);
    return { scale, zero: 8 };
  }
  const scale = max(roundToF16(max(high - low, SMALLEST_RANGE) / 15), SMALLEST_SCALE);
  return { scale, zero: clampNibble(-roundEven(low / scale)) };
}

/** Rounds a matrix to the nearest 4-bit one. */
export function quantizeReference({ rows, cols, values }: Matrix, { group, symmetric }: RoundOptions): QuantizedMatrix {
  const groups = rows * ceil(cols / group);
  const made = { q: new Uint8Array(rows * cols), scale: new Float32Array(groups), zero: new Uint8Array(groups) };
  eachGroup(rows, cols, group, (index, begin, end) => {
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    for (let i = begin; i < end; i++) {
      const w = values[i] as number;
      if (w < low) low = w;
      if (w > high) high = w;
    }
    const { scale, zero } = groupScale(low, high, symmetric);
    made.scale[index] = scale;
    made.zero[index] = zero;
    for (let i = begin; i < end; i++) made.q[i] = clampNibble(roundEven((values[i] as number) / scale) + zero);
  });
  return { rows, cols, group, ...made };
}

/**
 * Both at once, in one pass: the nearest matrix that 4 bits can hold, or with `s` Q(W diag(s)) diag(1 / s), what takes the place of W
 * when its input is not touched.
 */
export function roundMatrix(matrix: Matrix, { group, symmetric }: RoundOptions, s?: Float32Array): Matrix {
  const { rows, cols, values } = matrix;
  const rounded = new Float32Array(rows * cols);
  const scaled = new Float32Array(min(cols, group));
  const divisors = s ?? new Float32Array(cols).fill(1);
  for (let row = 0, at = 0; row < rows; row++)
    for (let begin = 0; begin < cols; begin += group) {
      const size = min(group, cols - begin);
      let low = Number.POSITIVE_INFINITY;
      let high = Number.NEGATIVE_INFINITY;
      for (let j = 0; j < size; j++) {
        const w = fround((values[at + j] as number) * (divisors[begin + j] as number));
        scaled[j] = w;
        if (w < low) low = w;
        if (w > high) high = w;
      }
      const { scale, zero } = groupScale(low, high, symmetric);
      for (let j = 0; j < size; j++, at++) {
        const nearest = roundEven((scaled[j] as number) / scale) + zero;
        const q = Math.min(15, Math.max(0, nearest));
        rounded[at] = ((q - zero) * scale) / (divisors[begin + j] as number);
      }
    }
  return { rows, cols, values: rounded };
}

/** Columns times s. */
export function scaleColumns({ rows, cols, values }: Matrix, s: Float32Array, inverse = false): Matrix {
  const scaled = new Float32Array(values.length);
  for (let row = 0, i = 0; row < rows; row++)
    for (let c = 0; c < cols; c++, i++)
      scaled[i] = inverse ? (values[i] as number) / (s[c] as number) : (values[i] as number) * (s[c] as number);
  return { rows, cols, values: scaled };
}

/** Rows divided by s. */
export function divideRows({ rows, cols, values }: Matrix, s: Float32Array): Matrix {
  const divided = new Float32Array(values.length);
  for (let row = 0, i = 0; row < rows; row++) {
    const divisor = s[row] as number;
    for (let c = 0; c < cols; c++, i++) divided[i] = (values[i] as number) / divisor;
  }
  return { rows, cols, values: divided };
}

/** W diag(columns), rows divided, each step in f32. */
export function scaled(matrix: Matrix, { columns, rows }: Scaling): Matrix {
  const wide = columns === undefined ? matrix : scaleColumns(matrix, columns);
  return rows === undefined ? wide : divideRows(wide, rows);
}

/** Each value at most as large as its group's limit, [rows, groups]. */
export function clamped({ rows, cols, values }: Matrix, limits: Float32Array, group: number): Matrix {
  const kept = values.slice();
  eachGroup(rows, cols, group, (index, begin, end) => {
    const limit = limits[index] as number;
    for (let i = begin; i < end; i++) kept[i] = min(limit, max(-limit, values[i] as number));
  });
  return { rows, cols, values: kept };
}

const STEPS = 10;
const SHRINK_GRID = 20;

/** The squares [n, n] of a row's blocks, one after the other, as `clipLimits` and `feedbackRound` take them: where each begins. */
function eachBlock(cols: number, size: number, visit: (begin: number, end: number, square: number) => void): void {
  for (let begin = 0, square = 0; begin < cols; begin += size) {
    const end = min(cols, begin + size);
    visit(begin, end, square);
    square += (end - begin) ** 2;
  }
}

/**
 * The best clipping limit of each group, [rows, groups].
 * @param matrix already scaled
 * @param grams per group its H, [n, n], one after the other
 */
export function clipLimitsReference(matrix: Matrix, grams: Float32Array, options: RoundOptions): Float32Array {
  const { rows, cols, values } = matrix;
  const groups = ceil(cols / options.group);
  const limits = new Float32Array(rows * groups);
  eachBlock(cols, options.group, (begin, end, square) => {
    const products = grams.subarray(square, square + (end - begin) ** 2);
    for (let row = 0; row < rows; row++) {
      const part = values.subarray(row * cols + begin, row * cols + end);
      limits[row * groups + begin / options.group] = bestLimit(part, products, options);
    }
  });
  return limits;
}

/** Of ten limits for a group, the one whose error d after clamping and rounding has the least d^T H d. */
function bestLimit(part: Float32Array, products: Float32Array, options: RoundOptions): number {
  const top = part.reduce((most, w) => max(most, abs(w)), 0);
  let [best, least] = [top, Number.POSITIVE_INFINITY];
  for (let step = 0; step < STEPS; step++) {
    const limit = fround(top * (1 - step / SHRINK_GRID));
    const values = part.map((w) => min(limit, max(-limit, w)));
    const rounded = roundMatrix({ rows: 1, cols: part.length, values }, options).values;
    const error = quadratic(
      rounded.map((w, i) => w - (part[i] as number)),
      products,
    );
    if (error < least) [best, least] = [limit, error];
  }
  return best;
}

/** d^T H d. */
function quadratic(d: Float32Array, products: Float32Array): number {
  const n = d.length;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    let weighed = 0;
    for (let j = 0; j < n; j++) weighed += (products[i * n + j] as number) * (d[j] as number);
    sum += (d[i] as number) * weighed;
  }
  return sum;
}

/** Share of the mean diagonal added to it, so that the inverse exists. */
const DAMPING = 0.01;

/**
 * Rounds `matrix` to the grid of `grid`: the same scales and zero points, other nibbles.
 * @param matrix already scaled
 * @param block inputs of a block: whole groups
 * @param grams per block its H, [n, n], one after the other
 */
export function feedbackReference(
  matrix: Matrix,
  grid: QuantizedMatrix,
  block: number,
  grams: Float32Array,
): QuantizedMatrix {
  const q = new Uint8Array(matrix.values.length);
  eachBlock(matrix.cols, block, (begin, end, square) => {
    const n = end - begin;
    const factor = inverseFactor(grams.subarray(square, square + n * n), n);
    for (let row = 0; row < matrix.rows; row++) roundRow(matrix, grid, row, begin, end, factor, q);
  });
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
