// The device that TensorFlow starts on, for each value of SPARSEVILA_DEVICE.
import { probe } from '../support/probe';

test('cpu loads no device library', () => {
  expect(probe({ SPARSEVILA_DEVICE: 'cpu' })).toMatchObject({ ok: true, device: 'CPU', deviceReport: '' });
});

test('standin is a GPU to TensorFlow', () => {
  const found = probe({ SPARSEVILA_DEVICE: 'standin' });
  expect(found).toMatchObject({ ok: true, device: 'GPU' });
  expect(found.ok && JSON.parse(found.deviceReport)).toMatchObject({ devices: [{ name: expect.any(String) }] });
});

test('another word is an error', () => {
  const found = probe({ SPARSEVILA_DEVICE: 'cuda' });
  expect(found).toEqual({ ok: false, message: expect.stringContaining("SPARSEVILA_DEVICE but received 'cuda'") });
});

test('a setting that the device refuses is an error, or with auto the CPU', () => {
  const refused = { SPARSEVILA_GPU_MEMORY: 'much' };
  const found = probe({ ...refused, SPARSEVILA_DEVICE: 'standin' });
  expect(found).toEqual({ ok: false, message: expect.stringMatching(/SPARSEVILA_GPU_MEMORY but received 'much'/) });
  expect(probe({ ...refused, SPARSEVILA_DEVICE: 'auto' })).toMatchObject({ ok: true, device: 'CPU' });
});
