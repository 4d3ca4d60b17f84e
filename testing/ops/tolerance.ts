// How far results may lie from their references: one table, named at every use. Knows nothing about ops.
// The measure is the normalized mean squared error, sum (a - e)^2 / sum e^2, as ggml's test-backend-ops has it.

/**
 * exact: moves, gathers and conversions.
 * f32: sums in f32 against sums in double precision; 16-bit weights and caches too, as the reference rounds them itself.
 * bf16Store: a value that the op computes and then stores as bf16 may fall to the other side of a rounding border than the
 *   reference's (a relative step of 2^-8), and every later row reads it. Few values do: 3e-10 at worst in our cases.
 * bf16Activations: products that round activations to bf16, against a reference that does not. One product costs 3e-6
 *   (a relative error uniform within 2^-9), and the three of a gated MLP add up to 1e-5.
 * int4Exact: activations in two 8-bit planes, a step of max|x| / (127 * 254) per group: 6e-10 at worst for one product of
 *   noise. A gated MLP reaches 4e-9, because its hidden values have larger maxima.
 * int4Fast: activations in one plane, a step of max|x| / 127 per group: 3e-5 for one product.
 * int4FastGated: the hidden values of a gated MLP are products, with maxima of many deviations, so the steps are coarse: 4e-4.
 * int8Activations: a step of max|x| / 127 per row: 3e-5 for one product, 7e-5 for a vision block.
 */
export const TOLERANCES = {
  exact: 0,
  f32: 1e-10,
  bf16Store: 1e-8,
  bf16Activations: 2e-5,
  int4Exact: 1e-8,
  int4Fast: 1e-4,
  int4FastGated: 1e-3,
  int8Activations: 1e-4,
} as const;

export type Tolerance = keyof typeof TOLERANCES;

/**
 * The normalized mean squared error of `actual`. NaN when the lengths differ or any element is NaN on either side, since NaN
 * equals nothing; Infinity when the expected values are all zero and the actual ones are not.
 */
export function nmse(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.NaN;
  let error = 0;
  let size = 0;
  for (let i = 0; i < expected.length; i++) {
    const [a, e] = [actual[i] as number, expected[i] as number];
    if (a === e && !Number.isFinite(e)) continue;
    error += (a - e) ** 2;
    size += e ** 2;
  }
  if (size === 0) return error === 0 ? 0 : error / size;
  return error / size;
}

/** Whether an error is within a named tolerance. NaN is not. */
export function within(error: number, tolerance: Tolerance): boolean {
  return error <= TOLERANCES[tolerance];
}
