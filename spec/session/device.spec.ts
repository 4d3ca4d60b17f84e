// Whole conversations on the stand-in of a GPU: the answers are the processor's, and a token costs one copy to the host: its id.

import { runOn } from '../support/device';
import type { DeviceTurns } from './device_turns';

let standin: DeviceTurns;
let cpu: DeviceTurns;
beforeAll(async () => {
  [standin, cpu] = await Promise.all([
    runOn<DeviceTurns>('standin', 'session/device_turns'),
    runOn<DeviceTurns>('cpu', 'session/device_turns'),
  ]);
});

test('each process uses its device', () => {
  expect([standin.device, cpu.device]).toEqual(['GPU', 'CPU']);
});

test.each(['dense, f32', 'SparseVILA, f32', 'SparseVILA, bf16'])('%s: answers as on the processor', (name) => {
  expect(standin.answers[name]).toHaveLength(6);
  expect(standin.answers[name]).toEqual(cpu.answers[name]);
});

test.each(['dense, f32', 'SparseVILA, f32', 'SparseVILA, bf16'])(
  '%s: a token costs one copy to the host, its id',
  (name) => {
    expect(standin.perToken[name]).toEqual({ count: 1, bytes: 4 });
  },
);
