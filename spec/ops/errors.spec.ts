// An op refuses invalid arguments with an exception that names the reason, and stays usable. Hundreds of calls, and
// refused ones, leave no tensor behind.

import { linear } from '../../src/ops/linear';
import { float32, floats } from '../../src/ops/run';
import { sample } from '../../src/ops/sample';
import { start } from '../../src/runtime/start';
import { OP_CASES } from '../../testing/ops/cases/index';
import { DRAW, keep, NONE, REFUSED, W, zeros } from './refused';

afterAll(() => keep.dispose());

test.each([
  ['NaN', [1, Number.NaN, 2]],
  ['+infinity', [1, Number.POSITIVE_INFINITY]],
  ['nothing above -infinity', [Number.NEGATIVE_INFINITY]],
  ['no logits', []],
])('sample gives -1 for %s', (_what, values) => {
  for (const temperature of [0, 1]) {
    const id = sample(keep.tensor(float32(values, [values.length])), { ...DRAW, temperature });
    expect([...floats(id)]).toEqual([-1]);
    id.dispose();
  }
});

describe('what an op refuses', () => {
  test.each(REFUSED)('%s', (_name, call, message) => {
    const { tf, backend } = start();
    expect(call).toThrow(message);
    // A second refusal makes no more tensors than the arguments that this table keeps.
    const before = [tf.memory().numTensors, backend.binding.getNumOfTensors()];
    const kept = keep.count();
    expect(call).toThrow(message);
    const after = [tf.memory().numTensors, backend.binding.getNumOfTensors()];
    const made = keep.count() - kept;
    expect(after[0]).toBe((before[0] ?? 0) + made);
    expect(after[1]).toBeLessThanOrEqual((before[1] ?? 0) + made);
    // The op is still usable.
    const y = linear(zeros(1, 5), W, NONE);
    expect([...floats(y)]).toEqual([0, 0, 0, 0, 0, 0, 0]);
    y.dispose();
  });
});

describe('200 calls leave no tensor', () => {
  const small = OP_CASES.filter((item) => !item.big);
  test.each([...new Set(small.map(({ op }) => op))])('%s', (op) => {
    const { tf, backend } = start();
    const prepared = small.find((item) => item.op === op)?.prepare();
    const counts = () => [tf.memory().numTensors, backend.binding.getNumOfTensors()];
    const call = () => prepared?.run().forEach((output) => void output.dispose());
    call();
    const before = counts();
    for (let i = 0; i < 200; i++) call();
    expect(counts()).toEqual(before);
    prepared?.dispose();
  });
});

test('a disposed case leaves nothing behind', () => {
  const { tf } = start();
  for (const item of OP_CASES.filter((one) => !one.big)) {
    const before = tf.memory().numTensors;
    const prepared = item.prepare();
    for (const output of prepared.run()) output.dispose();
    prepared.dispose();
    // The code of an activation is made once and kept for the process.
    expect(tf.memory().numTensors - before).toBeLessThanOrEqual(1);
  }
});
