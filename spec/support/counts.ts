// The tensors that exist, as tfjs counts them and as TensorFlow does.

import { start } from '../../src/runtime/start';

export interface TensorCount {
  readonly tfjs: number;
  readonly tensorflow: number;
}

export function countTensors(): TensorCount {
  const { tf, backend } = start();
  return { tfjs: tf.memory().numTensors, tensorflow: backend.binding.getNumOfTensors() };
}
