// Tensors that a piece of work leaves behind, as tfjs counts them and as TensorFlow does.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { start } from '../../src/runtime/start';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

/** Collects garbage, and waits until the tensors of what was collected have been freed. What a freed object held is collected in the next round. */
export async function collected(rounds = 12): Promise<void> {
  for (let i = 0; i < rounds; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// TensorFlow counts the tensors of all specs that ran in this process: what those before left to the collector is freed first.
beforeAll(() => collected(3));

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
