// Gram matrices of a layer's inputs over all calibration rows: X^T diag(weights) X, in blocks along the diagonal, summed sequence by
// sequence. The mean squared error d^T H d of any change d within a block follows without the rows.

import { linear } from '../ops/linear';
import { float32, floats } from '../ops/run';
import { packArrays } from '../ops/weights';

/** Maximum number of columns of a block, unless groups are larger. */
const BLOCK = 512;

export interface Gram {
  readonly width: number;
  /** Columns per block: a multiple of the group. */
  readonly block: number;
  /** Row-major squares; the last may be smaller. */
  readonly parts: readonly Float64Array[];
}

export function emptyGram(width: number, group: number): Gram {
  const block = Math.min(width, group * Math.max(1, Math.floor(BLOCK / group)));
  const parts = Array.from(
    { length: Math.ceil(width / block) },
    (_, i) => new Float64Array(Math.min(block, width - i * block) ** 2),
  );
  return { width, block, parts };
}

/** Adds rows x, f32 [rows, width], each times its weight. */
export function addToGram({ width, block, parts }: Gram, x: Float32Array, weights: ArrayLike<number>): void {
  const rows = weights.length;
  const roots = Float64Array.from(weights, Math.sqrt);
  const none = float32([], [0]);
  for (const [i, sum] of parts.entries()) {
    const size = Math.min(block, width - i * block);
    const transposed = new Float32Array(size * rows);
    for (let row = 0; row < rows; row++)
      for (let c = 0; c < size; c++)
        transposed[c * rows + row] = (roots[row] as number) * (x[row * width + i * block + c] as number);
    const packed = packArrays([transposed], rows);
    const input = float32(transposed, [size, rows]);
    const product = linear(input, packed, none);
    const values = floats(product);
    for (let j = 0; j < values.length; j++) sum[j] = (sum[j] as number) + (values[j] as number);
    for (const tensor of [packed.tensor, input, product]) tensor.dispose();
  }
  none.dispose();
}

/** Columns begin .. end - 1, of one block, for inputs divided by `s`: f32, row-major. */
export function gramOf({ width, block, parts }: Gram, s: Float32Array, begin: number, end: number): Float32Array {
  const part = Math.floor(begin / block);
  const [origin, size] = [part * block, Math.min(block, width - part * block)];
  const sum = parts[part] as Float64Array;
  const n = end - begin;
  const scaled = new Float32Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++)
      scaled[i * n + j] =
        (sum[(begin - origin + i) * size + begin - origin + j] as number) /
        (s[begin + i] as number) /
        (s[begin + j] as number);
  return scaled;
}

/** All blocks of `size` columns, which divide the Gram matrix's own, concatenated, each as from `gramOf`. */
export function gramsOf(gram: Gram, s: Float32Array, size: number): Float32Array {
  const rest = gram.width % size;
  const all = new Float32Array(((gram.width - rest) / size) * size * size + rest * rest);
  for (let begin = 0, at = 0; begin < gram.width; begin += size) {
    const part = gramOf(gram, s, begin, Math.min(gram.width, begin + size));
    all.set(part, at);
    at += part.length;
  }
  return all;
}
