// Calls ops by name on tfjs-node's backend, without attributes, because TensorFlow caches a kernel per attribute value permanently. Positions,
// lengths and flags are int32 tensors. Does not know what an op computes.
// Every function throws only SparseVilaErrors: ERR_OP for arguments that the op refuses, ERR_OUT_OF_MEMORY, ERR_DISPOSED, ERR_FILE_CHANGED and
// ERR_FILE_UNREADABLE.

import { SparseVilaError } from '../errors';
import { guard, opError } from '../runtime/op_error';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';

/** Runs `body`, which runs an op. Checks for disposed inputs, because the backend's error does not mention them. */
function guardOp<T>(op: string, inputs: readonly Tensor[], body: () => T): T {
  try {
    return body();
  } catch (error) {
    const gone = inputs.findIndex((input) => input.isDisposed);
    if (gone < 0) throw opError(op, error);
    throw new SparseVilaError('ERR_DISPOSED', `${op}: input ${gone} has been disposed of.`, { cause: error });
  }
}

/** Runs an op with one output. */
export function run(op: string, inputs: readonly Tensor[]): Tensor {
  const { backend } = start();
  return guardOp(op, inputs, () => backend.executeSingleOutput(op, [], inputs));
}

/** Runs an op with `count` outputs. */
export function runMany(op: string, inputs: readonly Tensor[], count: number): Tensor[] {
  const { backend } = start();
  return guardOp(op, inputs, () => backend.executeMultipleOutputs(op, [], inputs, count));
}

/** Runs a stock op with one output. `types` names the attributes that hold data types: TensorFlow caches a kernel per value, but there are few. */
export function runTyped(op: string, types: Readonly<Record<string, number>>, inputs: readonly Tensor[]): Tensor {
  const { backend } = start();
  const type = backend.binding.TF_ATTR_TYPE;
  const attrs = Object.entries(types).map(([name, value]) => ({ name, type, value }));
  return guardOp(op, inputs, () => backend.executeSingleOutput(op, attrs, inputs));
}

/** Runs an op with two outputs. */
export function runTwo(op: string, inputs: readonly Tensor[]): [Tensor, Tensor] {
  return runMany(op, inputs, 2) as [Tensor, Tensor];
}

/**
 * Runs an op with two outputs whose inputs include lists. `lengths` names the attributes that hold their lengths: TensorFlow caches
 * a kernel per value, but there are few values: the sizes of models and of batches.
 */
export function runLists(
  op: string,
  lengths: Readonly<Record<string, number>>,
  inputs: readonly Tensor[],
): [Tensor, Tensor] {
  const { backend } = start();
  const type = backend.binding.TF_ATTR_INT;
  const attrs = Object.entries(lengths).map(([name, value]) => ({ name, type, value }));
  return guardOp(op, inputs, () => backend.executeMultipleOutputs(op, attrs, inputs, 2)) as [Tensor, Tensor];
}

/** Runs an op without outputs. */
export function runEffect(op: string, inputs: readonly Tensor[]): void {
  runMany(op, inputs, 0);
}

/** An int32 tensor, [n] unless a shape is given. The caller disposes of it. */
export function int32(values: readonly number[] | Int32Array, shape: readonly number[] = [values.length]): Tensor {
  const { tf } = start();
  return guard('tensor', () =>
    tf.tensor(values instanceof Int32Array ? values : Int32Array.from(values), [...shape], 'int32'),
  );
}

/** A float32 tensor. The caller disposes of it. */
export function float32(values: Float32Array | readonly number[], shape: readonly number[]): Tensor {
  const { tf } = start();
  return guard('tensor', () =>
    tf.tensor(values instanceof Float32Array ? values : Float32Array.from(values), [...shape], 'float32'),
  );
}

/** The bits of a number as f32, for options that travel as int32. */
export const floatBits = (value: number): number => new Int32Array(Float32Array.of(value).buffer)[0] ?? 0;

const empty: { int32?: Tensor; float32?: Tensor } = {};
/** An empty int32 tensor, made once and kept: an optional input that is absent. */
export function noInt32(): Tensor {
  if (empty.int32 === undefined || empty.int32.isDisposed) empty.int32 = int32([]);
  return empty.int32;
}
/** The same as float32. */
export function noFloat32(): Tensor {
  if (empty.float32 === undefined || empty.float32.isDisposed) empty.float32 = float32([], [0]);
  return empty.float32;
}

/** Runs `body` with an int32 tensor that is disposed of after the call. */
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
  return guard('dataSync', () => tensor.dataSync<'float32'>());
}

/** The elements of an int32 tensor. */
export function ints(tensor: Tensor): Int32Array {
  return guard('dataSync', () => tensor.dataSync<'int32'>());
}

/** Numbers end to end. */
export function joinNumbers(parts: readonly Float32Array[]): Float32Array {
  const joined = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
