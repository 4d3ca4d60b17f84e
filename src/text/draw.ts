// The arithmetic of a random draw, in steps that give equal bits in JavaScript, in the CPU kernel and in the GPU kernel. Its use is described
// in ops/sample. Knows no tensor.

/** How a token is drawn. */
export interface Draw {
  /** At least 0; 0 is greedy. */
  readonly temperature: number;
  /** 0 keeps all. */
  readonly topK: number;
  /** In (0, 1]; 1 keeps all. */
  readonly topP: number;
  /** In [0, 1): the random number of the draw. */
  readonly uniform: number;
}

/** Maximum number of logits in a row: the sum of their weights stays below 2^53. */
export const MOST_LOGITS = 2 ** 19;

/** The multiple of 2^-24 at or below u ∈ [0, 1), which f32 holds exactly. */
export function roundedDown(u: number): number {
  return Math.floor(u * 2 ** 24) / 2 ** 24;
}

const f32 = Math.fround;
const [LOG2_E, LN2_HIGH, LN2_LOW] = [f32(Math.LOG2E), 0.693359375, f32(-2.1219444e-4)];
const [C5, C4, C3] = [f32(1.98756915e-4), f32(1.3981999507e-3), f32(8.3334519073e-3)];
const [C2, C1, C0] = [f32(4.1665795894e-2), f32(1.6666665459e-1), f32(5.0000001201e-1)];
const SHIFT = 1.5 * 2 ** 23; // Adding and subtracting it rounds an f32 to an integer, ties to even.

/**
 * floor(2^34 e^x), x = (score - highest) / temperature ≤ 0, by the polynomial of Cephes' expf in f32 steps: an integer from 0 to
 * 2^34, off by 2^-22 of itself at most. All arguments are f32 values.
 */
export function sampleWeight(score: number, highest: number, temperature: number): number {
  const x = f32(f32(score - highest) / temperature);
  if (!(x >= f32(-23.6))) return 0; // 2^34 e^-23.6 < 1
  const n = f32(f32(f32(x * LOG2_E) + SHIFT) - SHIFT);
  const r = f32(f32(x - f32(n * LN2_HIGH)) - f32(n * LN2_LOW));
  let p = f32(f32(C5 * r) + C4);
  p = f32(f32(p * r) + C3);
  p = f32(f32(p * r) + C2);
  p = f32(f32(p * r) + C1);
  p = f32(f32(p * r) + C0);
  p = f32(f32(f32(p * f32(r * r)) + r) + 1);
  return Math.floor(p * 2 ** (34 + n));
}
