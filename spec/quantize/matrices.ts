// Matrices for the specs of this folder, from a fixed seed.
import type { Matrix } from '../../src/checkpoint/round';

/** Numbers about 0 with a standard deviation of about 1, the same at every run. */
export function noise(count: number, seed: number): Float32Array {
  let state = seed;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Float32Array.from({ length: count }, () => (uniform() + uniform() + uniform() - 1.5) * 2);
}

export function randomMatrix(rows: number, cols: number, seed: number): Matrix {
  return { rows, cols, values: noise(rows * cols, seed) };
}
