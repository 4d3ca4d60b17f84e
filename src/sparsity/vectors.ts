// Operations on rows of numbers, for methods that compare and merge tokens.

import type { Matrix } from './method';

/** Copies rows of a matrix: f32 [rows, width]. */
export function takeRows({ data, width }: Matrix, rows: Int32Array): Float32Array {
  const taken = new Float32Array(rows.length * width);
  for (const [i, row] of rows.entries()) taken.set(data.subarray(row * width, (row + 1) * width), i * width);
  return taken;
}

/** target[at] += scale * m[row], for rows of m's width. */
export function addRow(target: Float32Array, at: number, { data, width }: Matrix, row: number, scale: number): void {
  for (let c = 0; c < width; c++)
    target[at * width + c] = (target[at * width + c] as number) + scale * (data[row * width + c] as number);
}

/** The mean of each group of rows, f32 [groups, width]; zeros for an empty group. */
export function meansOf({ data, width }: Matrix, groups: readonly (readonly number[])[]): Float32Array {
  const means = new Float32Array(groups.length * width);
  for (const [i, rows] of groups.entries())
    for (let c = 0; rows.length > 0 && c < width; c++)
      means[i * width + c] = rows.reduce((sum, row) => sum + (data[row * width + c] as number), 0) / rows.length;
  return means;
}

/** The means of the rows of each of t equal parts, f32 [t, width]. */
export function frameMeans(x: Matrix, t: number): Matrix {
  const n = x.data.length / x.width / t;
  const frames = Array.from({ length: t }, (_, frame) => Array.from({ length: n }, (_, i) => frame * n + i));
  return { data: meansOf(x, frames), width: x.width };
}

/** The chosen columns of a matrix. */
export function takeColumns({ data, width }: Matrix, columns: Int32Array): Matrix {
  const n = columns.length;
  const value = (at: number): number => data[Math.floor(at / n) * width + (columns[at % n] as number)] as number;
  return { data: Float32Array.from({ length: (data.length / width) * n }, (_, at) => value(at)), width: n };
}

/** Divides every row by its length; a row of zeros stays zero. */
export function unitRows({ data, width }: Matrix): Matrix {
  const unit = data.slice();
  for (let at = 0; at < unit.length; at += width) {
    const row = unit.subarray(at, at + width);
    const length = Math.sqrt(row.reduce((sum, x) => sum + x * x, 0));
    if (length > 0) for (const [c, x] of row.entries()) row[c] = x / length;
  }
  return { data: unit, width };
}

/** Inner product of two rows; for unit rows, their cosine. */
export function dot(m: Matrix, i: number, j: number): number {
  return product(m, i, m, j);
}

/** Inner product of a row of one matrix and a row of another of the same width. */
export function product(a: Matrix, i: number, b: Matrix, j: number): number {
  let sum = 0;
  for (let c = 0; c < a.width; c++) sum += (a.data[i * a.width + c] as number) * (b.data[j * b.width + c] as number);
  return sum;
}

/** |x_i - c_j|^2 for a row of each matrix. */
export function squaredDistance(x: Matrix, i: number, centers: Matrix, j: number): number {
  let sum = 0;
  for (let c = 0; c < x.width; c++)
    sum += ((x.data[i * x.width + c] as number) - (centers.data[j * x.width + c] as number)) ** 2;
  return sum;
}

/** The mean; 0 of nothing. */
export function mean(values: Iterable<number>): number {
  let [sum, count] = [0, 0];
  for (const value of values) [sum, count] = [sum + value, count + 1];
  return sum / Math.max(1, count);
}

/** The value that a share of the values is below, interpolated. */
export function quantile(values: Float32Array, share: number): number {
  const sorted = values.slice().sort();
  const at = share * (sorted.length - 1);
  const low = sorted[Math.floor(at)] as number;
  return low + ((sorted[Math.ceil(at)] as number) - low) * (at % 1);
}

/** Mean of the squared differences from the mean; 0 of nothing. */
export function variance(values: readonly number[]): number {
  const middle = mean(values);
  return mean(values.map((value) => (value - middle) ** 2));
}

/** The one of `candidates` with the largest inner product with row i; of equal ones, the first. */
export function nearest(m: Matrix, i: number, candidates: ArrayLike<number>): number {
  let best = 0;
  let most = Number.NEGATIVE_INFINITY;
  for (let at = 0; at < candidates.length; at++) {
    const product = dot(m, i, candidates[at] as number);
    if (product > most) [best, most] = [at, product];
  }
  return best;
}

/** 0 .. n - 1. */
export function everyIndex(n: number): Int32Array {
  return Int32Array.from({ length: n }, (_, i) => i);
}

/** 0 .. n - 1 without `taken`, ascending. */
export function without(n: number, taken: Iterable<number>): Int32Array {
  const isTaken = new Uint8Array(n);
  for (const i of taken) isTaken[i] = 1;
  return Int32Array.from(isTaken.keys()).filter((i) => isTaken[i] === 0);
}
