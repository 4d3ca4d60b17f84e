// The definitions of `linear`, of its activations and of `gatedMlp`, in double precision.

import type { Activation } from '../../../src/ops/linear';

/** erf to double precision where it matters here (Abramowitz and Stegun 7.1.26 is too coarse for a reference). */
function erf(x: number): number {
  if (Math.abs(x) > 3) {
    // Continued fraction of erfc, converges quickly for large arguments.
    let f = 0;
    for (let i = 60; i > 0; i--) f = i / 2 / (Math.abs(x) + f);
    const tail = Math.exp(-x * x) / ((Math.abs(x) + f) * Math.sqrt(Math.PI));
    return Math.sign(x) * (1 - tail);
  }
  let term = x;
  let sum = x;
  for (let n = 1; n < 80; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

/** The activations' definitions, in double precision. */
export function activationReference(x: number, activation: Activation): number {
  const sigmoid = (z: number): number => 1 / (1 + Math.exp(-z));
  if (activation === 'gelu_pytorch_tanh')
    return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
  if (activation === 'gelu') return 0.5 * x * (1 + erf(x / Math.SQRT2));
  if (activation === 'quick_gelu') return x * sigmoid(1.702 * x);
  if (activation === 'silu') return x * sigmoid(x);
  return x;
}

/** Row-major x [t, k] times w [n, k] transposed, plus bias, in double precision: the definition of `linear`. */
export function linearReference(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  k: number,
  bias?: ArrayLike<number>,
  activation: Activation = 'none',
): Float64Array {
  const t = x.length / k;
  const n = w.length / k;
  const y = new Float64Array(t * n);
  for (let i = 0; i < t; i++)
    for (let j = 0; j < n; j++) {
      let sum = bias?.[j] ?? 0;
      for (let c = 0; c < k; c++) sum += (x[i * k + c] as number) * (w[j * k + c] as number);
      y[i * n + j] = activationReference(sum, activation);
    }
  return y;
}

/** The definition of `linear` with a gated matrix, in double precision: gate and up [n, k]. */
export function gatedLinearReference(
  x: ArrayLike<number>,
  { gate, up, bias }: { gate: ArrayLike<number>; up: ArrayLike<number>; bias?: ArrayLike<number> | undefined },
  k: number,
  activation: Activation,
): Float64Array {
  const n = gate.length / k;
  const half = (which: number) => bias && Array.prototype.slice.call(bias, which * n, (which + 1) * n);
  const lifted = linearReference(x, up, k, half(1));
  return linearReference(x, gate, k, half(0), activation).map((value, i) => value * (lifted[i] as number));
}

/** The definition of `gatedMlp` in double precision: gate, up [m, d], down [d, m]. */
export function gatedMlpReference(
  x: ArrayLike<number>,
  gate: ArrayLike<number>,
  up: ArrayLike<number>,
  down: ArrayLike<number>,
  d: number,
): Float64Array {
  const hidden = linearReference(x, gate, d, undefined, 'silu');
  const lifted = linearReference(x, up, d);
  for (let i = 0; i < hidden.length; i++) hidden[i] = (hidden[i] as number) * (lifted[i] as number);
  return linearReference(hidden, down, gate.length / d);
}
