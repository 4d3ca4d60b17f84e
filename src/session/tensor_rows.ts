// Rows of tensors: copied as numbers, gathered and sliced.

import { floats, int32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Matrix } from '../sparsity/method';

/** Calls `make`, copies the numbers of the tensor [n, width] that it returns, and frees the tensor. */
export function matrixOf(make: () => Tensor): Matrix {
  const tensor = start().tf.tidy(make);
  try {
    return matrix(tensor);
  } finally {
    tensor.dispose();
  }
}

/** A copy of the numbers of a tensor [n, width]. */
export function matrix(tensor: Tensor): Matrix {
  return { data: floats(tensor).slice(), width: tensor.shape[1] as number };
}

/** Rows of a tensor [n, width]. */
export function gatherRows(x: Tensor, rows: Int32Array): Tensor {
  const { tf } = start();
  return tf.tidy(() => tf.gather(x, int32(rows)));
}

/** Rows begin … begin + count - 1 of a tensor [n, width]. */
export function sliceRows(x: Tensor, begin: number, count: number): Tensor {
  const [n, width] = x.shape as [number, number];
  return count === n ? x.clone() : start().tf.slice(x, [begin, 0], [count, width]);
}
