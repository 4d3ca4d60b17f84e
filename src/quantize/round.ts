// Rounding to 4 bits in groups along the inputs: what AWQ calls pseudo-quantisation, with the scale rounded to the
// binary16 it is stored as, so that what a search measures is what a checkpoint holds.
// Source: AWQ (arXiv 2306.00978), llm-awq `pseudo_quantize_tensor`.

import { roundToF16 } from './half';

/** Row-major f32 [rows, cols]: outputs by inputs, as in a checkpoint. */
export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly values: Float32Array;
}

/** w = (q - zero) scale, per group of `group` inputs of a row; q and zero are 0 .. 15. */
export interface QuantizedMatrix {
  readonly rows: number;
  readonly cols: number;
  readonly group: number;
  /** One nibble per byte, [rows, cols]. */
  readonly q: Uint8Array;
  /** [rows, ceil(cols / group)], each a binary16 number. */
  readonly scale: Float32Array;
  /** [rows, ceil(cols / group)]; 8 everywhere when symmetric. */
  readonly zero: Uint8Array;
}

export interface RoundOptions {
  readonly group: number;
  /** No zero points: a range of -8 .. 7 scales around 0. */
  readonly symmetric: boolean;
}

const { ceil, fround, max, min } = Math;

/** Below this, a scale would not survive as a binary16 number. */
const SMALLEST_SCALE = 2 ** -24;
const SMALLEST_RANGE = 1e-5;

/** From here on doubles are whole: adding it rounds. */
const WHOLE = 1.5 * 2 ** 52;

/** Nearest integer, ties to even, as torch rounds; |x| < 2^51. */
export const roundEven = (x: number): number => x + WHOLE - WHOLE;

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

/** Rounds a matrix to the nearest 4-bit one. */
export function quantizeMatrix({ rows, cols, values }: Matrix, { group, symmetric }: RoundOptions): QuantizedMatrix {
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

/** The matrix that a quantised one stands for. */
export function dequantizeMatrix({ rows, cols, group, q, scale, zero }: QuantizedMatrix): Matrix {
  const values = new Float32Array(rows * cols);
  eachGroup(rows, cols, group, (index, begin, end) => {
    const [s, z] = [scale[index] as number, zero[index] as number];
    for (let i = begin; i < end; i++) values[i] = ((q[i] as number) - z) * s;
  });
  return { rows, cols, values };
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
