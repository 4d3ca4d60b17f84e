// Tensors that a piece of work leaves behind, as tfjs counts them and as TensorFlow does.

import { start } from '../../src/runtime/start';

export interface TensorCount {
  readonly tfjs: number;
  readonly tensorflow: number;
}

export function countTensors(): TensorCount {
  const { tf, backend } = start();
  return { tfjs: tf.memory().numTensors, tensorflow: backend.binding.getNumOfTensors() };
}

/** Runs `work` and fails when it leaves tensors behind, whether it throws or not. */
export async function withoutLeak<T>(work: () => Promise<T> | T): Promise<T> {
  const before = countTensors();
  try {
    return await work();
  } finally {
    expect(countTensors()).toEqual(before);
  }
}
