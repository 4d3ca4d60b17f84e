// SmoothQuant: moves the difficulty of rounding from activations to weights. Inputs of a product are divided by s per channel,
// which the preceding norm absorbs, and the weights multiplied by s; then weights are rounded to 8 bits with one scale per output.
// Out-projection and the last layer of the MLP, which do not follow a norm, are rounded without smoothing.
// Source: SmoothQuant (arXiv 2211.10438), eq. 3 and 4; llm-awq `awq/quantize/smooth.py` (alpha 0.5).

import { type Matrix, roundEven } from '../checkpoint/round';
import type { Block } from '../models/blocks';
import type { BlockWeights, Norm } from './block_weights';

/** Lower bound of a weight column's largest value and of a scale. */
const SMALLEST = 1e-5;
const ALPHA = 0.5;

const { abs, fround, max } = Math;

/** A matrix w = scale q with one scale per output. */
export interface Int8Matrix {
  readonly rows: number;
  readonly cols: number;
  /** -127 .. 127, [rows, cols] */
  readonly q: Int8Array;
  /** [rows] */
  readonly scale: Float32Array;
}

/** Takes the elementwise maximum of |values| [t, channels] into `largest`. */
export function takeLargest(largest: Float32Array, values: Float32Array): void {
  const { length } = largest;
  for (let row = 0; row < values.length; row += length)
    for (let c = 0; c < length; c++) {
      const value = abs(values[row + c] as number);
      if (value > (largest[c] as number)) largest[c] = value;
    }
}

/**
 * s_c = max|x_c|^0.5 / max|W_c|^0.5 per input channel c, at least 1e-5; the maximum is over all matrices that share the input.
 * @param inputs max|x_c| over the calibration set, f32 [channels]
 */
export function smoothingScales(inputs: Float32Array, matrices: readonly Matrix[]): Float32Array {
  const weights = new Float32Array(inputs.length).fill(SMALLEST);
  for (const { values } of matrices) takeLargest(weights, values);
  return inputs.map((input, c) => max(input ** ALPHA / (weights[c] as number) ** (1 - ALPHA), SMALLEST));
}

/** The vectors in the file of the norm whose output is divided by s, per channel. */
export function dividedNorm({ weight, bias, plus = 0 }: Norm, s: Float32Array): Pick<Norm, 'weight' | 'bias'> {
  const divide = (values: Float32Array, less: number): Float32Array =>
    values.map((value, c) => value / (s[c] as number) - less);
  return { weight: divide(weight, plus), bias: bias && divide(bias, 0) };
}

/** Adds the vectors of a norm that is divided by s, by their names in the block. */
export function addDividedNorm(vectors: Map<string, Float32Array>, name: string, norm: Norm, s: Float32Array): void {
  for (const [part, values] of Object.entries(dividedNorm(norm, s)))
    if (values !== undefined) vectors.set(`${name}.${part}`, values);
}

/** W diag(s): undoes the division of its inputs. */
export function multipliedInputs({ rows, cols, values }: Matrix, s: Float32Array): Matrix {
  return { rows, cols, values: values.map((value, i) => value * (s[i % cols] as number)) };
}

/** Rounds each row to max|w| / 127 times -127 .. 127, ties to even, in f32, as `packInt8` does with floats. */
export function roundToInt8({ rows, cols, values }: Matrix): Int8Matrix {
  const q = new Int8Array(rows * cols);
  const scale = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const [begin, end] = [row * cols, (row + 1) * cols];
    const top = values.subarray(begin, end).reduce((largest, value) => max(largest, abs(value)), 0);
    const step = fround(top / 127);
    scale[row] = step;
    // A step below the smallest f32 is 0, and so is the row.
    if (step > 0) for (let i = begin; i < end; i++) q[i] = roundEven(fround((values[i] as number) / step));
  }
  return { rows, cols, q, scale };
}

export interface SmoothedBlock {
  readonly linears: Readonly<Record<string, Int8Matrix>>;
  /** Norms that are divided. */
  readonly vectors: Map<string, Float32Array>;
}

/** A block in 8 bits. `largest`: per site after a norm, max|x_c| over the calibration set. */
export function smoothBlock(
  { sites }: Pick<Block, 'sites'>,
  { linears, norms }: BlockWeights,
  largest: ReadonlyMap<string, Float32Array>,
): SmoothedBlock {
  const smoothed = { ...linears };
  const vectors = new Map<string, Float32Array>();
  for (const { name, linears: names, absorbedBy } of sites) {
    const inputs = largest.get(name);
    if (inputs === undefined || absorbedBy === undefined || !('norm' in absorbedBy)) continue;
    const matrices = names.map((linear) => linears[linear] as Matrix);
    const s = smoothingScales(inputs, matrices);
    for (const [i, linear] of names.entries()) smoothed[linear] = multipliedInputs(matrices[i] as Matrix, s);
    addDividedNorm(vectors, absorbedBy.norm, norms[absorbedBy.norm] as Norm, s);
  }
  const made = Object.entries(smoothed).map(([linear, matrix]) => [linear, roundToInt8(matrix)] as const);
  return { linears: Object.fromEntries(made), vectors };
}
