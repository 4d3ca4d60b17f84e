// Error measures, and the tolerance of each kind of result. Does not know what is measured.

/** f32 against torch's f32: other orders of summation, nothing else. The worst stage measured has 8e-12. */
export const F32_NMSE = 1e-9;
/** Normalized pixels against Hugging Face's: the same integers and the same f32 steps, so the same bits. */
export const PIXELS_ABSOLUTE = 0;

/**
 * Normalized mean squared error, sum (a - e)^2 / sum e^2. NaN (which is below no tolerance) when a value is NaN or infinite, the lengths
 * differ, or nothing is expected.
 */
export function nmse(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length || expected.length === 0) return Number.NaN;
  let error = 0;
  let power = 0;
  for (let i = 0; i < expected.length; i++) {
    const [a, e] = [actual[i] ?? Number.NaN, expected[i] ?? Number.NaN];
    error += (a - e) ** 2;
    power += e ** 2;
  }
  const ratio = error === 0 ? 0 : error / power;
  return Number.isFinite(power) && Number.isFinite(ratio) ? ratio : Number.NaN;
}

/** The largest absolute difference; NaN for other lengths or a NaN. */
export function largestDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.NaN;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const d = Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    if (Number.isNaN(d)) return Number.NaN;
    largest = Math.max(largest, d);
  }
  return largest;
}

/** 'identical', or where two lists of arrays first differ in their bits. */
export function compareBits(a: readonly Float32Array[], b: readonly Float32Array[]): string {
  if (a.length !== b.length) return `${a.length} arrays against ${b.length}`;
  for (const [i, x] of a.entries()) {
    const y = b[i] ?? new Float32Array();
    if (x.length !== y.length) return `array ${i}: ${x.length} values against ${y.length}`;
    const [p, q] = [bits(x), bits(y)];
    const at = p.findIndex((word, j) => word !== q[j]);
    if (at >= 0) return `array ${i}, value ${at} of ${x.length}: ${x[at]} against ${y[at]}`;
  }
  return 'identical';
}

const bits = (x: Float32Array): Uint32Array => new Uint32Array(x.buffer, x.byteOffset, x.length);
