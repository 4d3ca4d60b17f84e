// Products with packed matrices: linear layers, the gated MLP of Llama-like decoders, and rows of an embedding table.

import type { Tensor } from '../runtime/tensor';
import { int32, run, withInt32 } from './run';
import type { PackedMatrix } from './weights';

/** Pointwise functions that a product can end with. Names as in Hugging Face configs. */
export type Activation = 'none' | 'gelu_pytorch_tanh' | 'gelu' | 'quick_gelu' | 'silu';
export const ACTIVATION_CODE: Readonly<Record<Activation, number>> = {
  none: 0,
  gelu_pytorch_tanh: 1,
  gelu: 2,
  quick_gelu: 3,
  silu: 4,
};

const activationTensors = new Map<Activation, Tensor>();
/** The activation's code as a tensor, made once and kept. */
function activationTensor(activation: Activation): Tensor {
  let tensor = activationTensors.get(activation);
  if (tensor === undefined || tensor.isDisposed) {
    tensor = int32([ACTIVATION_CODE[activation]]);
    activationTensors.set(activation, tensor);
  }
  return tensor;
}

/**
 * y = activation(x W^T + bias).
 * @param x f32 [t, inputs]
 * @param bias f32 [outputs], or [0] for none
 * @returns f32 [t, outputs]
 */
export function linear(x: Tensor, w: PackedMatrix, bias: Tensor, activation: Activation = 'none'): Tensor {
  return run('SvLinear', [x, w.tensor, bias, activationTensor(activation)]);
}

/** y = (silu(x G^T) * (x U^T)) D^T, f32 [t, d]; `gateUp` packed with `gated`. (Shazeer 2020, SwiGLU.) */
export function gatedMlp(x: Tensor, gateUp: PackedMatrix, down: PackedMatrix): Tensor {
  return run('SvGatedMlp', [x, gateUp.tensor, down.tensor]);
}

/** Rows `ids` of a packed table as f32 [n, inputs]. Throws when an id is outside the table. */
export function embed(table: PackedMatrix, ids: Int32Array | readonly number[]): Tensor {
  return withInt32(ids, (tensor) => run('SvEmbed', [table.tensor, tensor]));
}

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
