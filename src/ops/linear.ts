// Products with packed matrices: linear layers, the gated MLP of Llama-like decoders, and rows of an embedding table.

import type { Tensor } from '../runtime/tensor';
import { int32, run, withInt32 } from './run';
import type { PackedMatrix } from './weights';

/** Activations that can follow a product, named as in Hugging Face configs. */
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
 * y = activation(x W^T + bias), or, of a matrix packed with `gated`, activation(x G^T + bias) * (x U^T + bias).
 * @param x f32 [t, inputs]
 * @param bias f32 [outputs], of a gated matrix [2 outputs], the gate's first; or [0] for none
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
