// Peaks that `bench -- ops` divides by: the best of tries spread over the run.
import { describeMachine, type Machine, spreadPeaks } from '../../scripts/bench/machine';

const machine = (read: number, f32: number): Machine => ({
  ...{ processor: 'a processor', isa: 'portable', threads: 1 },
  ...{ read, f32, bf16: 0, int8: 0 },
});

it('keeps the best try of each peak, and tries again only after a while', () => {
  const tries = [machine(1e9, 5e9), machine(3e9, 4e9), machine(2e9, 9e9)];
  let now = 0;
  const peaks = spreadPeaks(
    () => tries.shift() as Machine,
    () => now,
  );
  expect(peaks.best()).toEqual(machine(1e9, 5e9));
  peaks.tryAgain();
  expect(peaks.tries()).toBe(1);
  now = 60_000;
  peaks.tryAgain();
  expect(peaks.best()).toEqual(machine(3e9, 5e9));
  peaks.tryAgain(0);
  expect(peaks.best()).toEqual(machine(3e9, 9e9));
  expect(peaks.tries()).toBe(3);
  expect(describeMachine(peaks.best())).toContain('3.0 GB/s');
});
