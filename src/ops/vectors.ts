// Records: vectors concatenated in one tensor, because each input of an op costs about half a microsecond per call.

import type { Tensor } from '../runtime/tensor';

/** f32 vectors in the op's order, each padded with zeros to a multiple of 16; bit i of `present`: whether the i-th exists. */
export interface VectorRecord {
  readonly tensor: Tensor;
  readonly present: number;
}

/** Number of floats of a vector in a record. */
export const paddedLength = (length: number): number => Math.ceil(length / 16) * 16;

/** The values of a record's tensor. Those that are undefined or empty are absent. */
export function recordValues(vectors: readonly (ArrayLike<number> | undefined)[]): {
  readonly values: Float32Array;
  readonly present: number;
} {
  const values = new Float32Array(vectors.reduce((sum, vector) => sum + paddedLength(vector?.length ?? 0), 0));
  let [at, present] = [0, 0];
  for (const [i, vector] of vectors.entries()) {
    if (vector === undefined || vector.length === 0) continue;
    values.set(vector, at);
    at += paddedLength(vector.length);
    present |= 1 << i;
  }
  return { values, present };
}
