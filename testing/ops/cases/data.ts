// Seeded values of op cases, equal on every machine and in every run. Knows no ops.

import type { WeightType } from '../../../src/ops/weights';

/** A generator of numbers in [0, 1) that the text decides (FNV-1a into mulberry32). */
export function random(seed: string): () => number {
  let state = 0x811c9dc5;
  for (const char of seed) state = Math.imul(state ^ (char.codePointAt(0) ?? 0), 0x01000193);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** n values with mean 0, deviation `scale` and full mantissas (two uniform ones added). */
export function noise(seed: string, n: number, scale = 1): Float32Array {
  const next = random(seed);
  const values = new Float32Array(n);
  const width = scale * Math.sqrt(6);
  for (let i = 0; i < n; i++) values[i] = (next() + next() - 1) * width;
  return values;
}

/** Values around 1, as the weights of norms are. */
export function aroundOne(seed: string, n: number): Float32Array {
  return noise(seed, n, 0.2).map((x) => 1 + x);
}

/** `count` ascending distinct integers below n. */
export function pickAscending(seed: string, count: number, n: number): Int32Array {
  const next = random(seed);
  const picked = new Int32Array(count);
  let at = 0;
  for (let i = 0; i < n && at < count; i++) if (next() * (n - i) < count - at) picked[at++] = i;
  return picked;
}

/** At most `most` indices below n, evenly spread, the first and the last among them. */
export function sample(n: number, most: number): number[] {
  if (n <= most) return Array.from({ length: n }, (_, i) => i);
  return Array.from({ length: most }, (_, i) => Math.round((i * (n - 1)) / (most - 1)));
}

/** x rounded to the nearest bf16, ties to even: what storing in a bf16 cache does to a value. */
export function roundToBf16(x: number): number {
  const bits = new Uint32Array(new Float32Array([x]).buffer);
  const u = bits[0] as number;
  bits[0] = ((u + 0x7fff + ((u >>> 16) & 1)) & 0xffff0000) >>> 0;
  return new Float32Array(bits.buffer)[0] as number;
}

/** x rounded to the nearest f16, ties to even; beyond 65,519.99… infinite. x is an f32 value. */
export function roundToF16(x: number): number {
  const size = Math.abs(x);
  if (Number.isNaN(x) || size === 0) return x;
  if (size >= 65520) return Math.sign(x) * Number.POSITIVE_INFINITY;
  const exponent = Math.max(-14, ((new Uint32Array(Float32Array.of(size).buffer)[0] ?? 0) >>> 23) - 127);
  const step = 2 ** (exponent - 10);
  const shift = 1.5 * 2 ** 52; // adding and subtracting it rounds a double to an integer, ties to even
  return Math.sign(x) * (size / step + shift - shift) * step;
}

/** A copy of the values rounded to what `type` can hold. */
export function rounded(values: Float32Array, type: WeightType): Float32Array {
  if (type === 'f16') return values.map(roundToF16);
  const copy = values.slice();
  if (type === 'f32') return copy;
  const bits = new Uint32Array(copy.buffer);
  for (let i = 0; i < bits.length; i++) {
    const u = bits[i] as number;
    bits[i] = (u + 0x7fff + ((u >>> 16) & 1)) & 0xffff0000;
  }
  return copy;
}

/** A weight matrix [rows, k] that `type` holds exactly, scaled so that products keep their inputs' size. */
export function weightValues(seed: string, rows: number, k: number, type: WeightType): Float32Array {
  return rounded(noise(seed, rows * k, 1 / Math.sqrt(k)), type);
}

/** The given rows of a row-major [., width] array, one after another. */
export function rowsOf(values: ArrayLike<number>, width: number, rows: readonly number[]): Float64Array {
  const out = new Float64Array(rows.length * width);
  rows.forEach((row, i) => {
    for (let c = 0; c < width; c++) out[i * width + c] = values[row * width + c] as number;
  });
  return out;
}

/** The given elements of an array. */
export function elementsOf(values: ArrayLike<number>, indices: ArrayLike<number>): Float64Array {
  return Float64Array.from(indices, (i) => values[i] as number);
}
