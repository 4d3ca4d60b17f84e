// How our ops are called: by name on tfjs-node's backend, with no attributes (TensorFlow caches a kernel per attribute
// value for ever). Positions, lengths and flags travel as int32 tensors. Knows nothing about what an op computes.

import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';

/** Runs an op with one output. */
export function run(op: string, inputs: readonly Tensor[]): Tensor {
  return start().backend.executeSingleOutput(op, [], inputs);
}

/** Runs an op with two outputs. */
export function runTwo(op: string, inputs: readonly Tensor[]): [Tensor, Tensor] {
  const [first, second] = start().backend.executeMultipleOutputs(op, [], inputs, 2);
  if (first === undefined || second === undefined) throw new Error(`${op}: expected two outputs`);
  return [first, second];
}

/** Runs an op with one output whose inputs are lists of `n` (a model's layers: one value, one kernel). */
export function runLists(op: string, n: number, inputs: readonly Tensor[]): Tensor {
  const { backend } = start();
  return backend.executeSingleOutput(op, [{ name: 'N', type: backend.binding.TF_ATTR_INT, value: n }], inputs);
}

/** Runs an op that only has an effect. */
export function runEffect(op: string, inputs: readonly Tensor[]): void {
  start().backend.executeMultipleOutputs(op, [], inputs, 0);
}

/** An int32 tensor [n]. The caller disposes of it. */
export function int32(values: readonly number[] | Int32Array): Tensor {
  return start().tf.tensor1d(values instanceof Int32Array ? values : Int32Array.from(values), 'int32');
}

/** A float32 tensor. The caller disposes of it. */
export function float32(values: Float32Array | readonly number[], shape: readonly number[]): Tensor {
  return start().tf.tensor(values instanceof Float32Array ? values : Float32Array.from(values), [...shape], 'float32');
}

/** Runs `body` with an int32 tensor that lives as long as the call. */
export function withInt32<T>(values: readonly number[] | Int32Array, body: (tensor: Tensor) => T): T {
  const tensor = int32(values);
  try {
    return body(tensor);
  } finally {
    tensor.dispose();
  }
}

/** The elements of a float32 tensor. */
export function floats(tensor: Tensor): Float32Array {
  return tensor.dataSync<'float32'>();
}
