// TensorFlow runs in this process, and starts once.
import { start } from '../../src/runtime/start';

describe('start', () => {
  test('adds two tensors on the CPU', () => {
    const { tf, device } = start();
    const sum = tf.tidy(() => tf.add(tf.tensor1d([1, 2, 3]), tf.tensor1d([10, 20, 30])).dataSync());
    expect([...sum]).toEqual([11, 22, 33]);
    expect(device).toBe('CPU');
  });

  test('gives the same runtime at every call', () => {
    expect(start()).toBe(start());
  });

  test('runs an op by its TensorFlow name', () => {
    const { tf, backend } = start();
    const x = tf.tensor1d([1, 4, 9]);
    const attrs = [{ name: 'T', type: backend.binding.TF_ATTR_TYPE, value: backend.binding.TF_FLOAT }];
    expect([...backend.executeSingleOutput('Sqrt', attrs, [x]).dataSync()]).toEqual([1, 2, 3]);
  });
});
