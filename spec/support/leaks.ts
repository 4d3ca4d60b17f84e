// Tensors that a piece of work leaves behind.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { countTensors } from './counts';

export { countTensors };

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

// TensorFlow counts the tensors of all specs that ran in this process: what those before left to the collector is freed before any are counted.
beforeAll(async () => {
  for (let i = 0; i < 3; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
});

/** Runs `work` and fails when it leaves tensors behind, whether it throws or not. */
export async function withoutLeak<T>(work: () => Promise<T> | T): Promise<T> {
  const before = countTensors();
  try {
    return await work();
  } finally {
    expect(countTensors()).toEqual(before);
  }
}
