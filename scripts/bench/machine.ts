// Measures the machine's peak rates, and computes the least time that a piece of work can take.

import { processor } from '../../src/runtime/machine';
import { start } from '../../src/runtime/start';

export interface Machine {
  readonly processor: string;
  readonly isa: string;
  readonly threads: number;
  /** Bytes per second that all threads read from memory. */
  readonly read: number;
  /** Floating-point operations per second of all threads: multiply-add in f32, and the bf16 dot product (0: none). */
  readonly f32: number;
  readonly bf16: number;
  /** Integer operations per second of all threads: products of bytes summed in 32 bits (0: plain loops). */
  readonly int8: number;
}

/** The kind of multiplication in a piece of work. */
export type Arithmetic = 'f32' | 'bf16' | 'int8';

export function measureMachine(): Machine {
  const { native } = start();
  return {
    processor: processor().model,
    isa: native.isa(),
    threads: native.threads(),
    read: native.measure('read'),
    f32: native.measure('f32'),
    bf16: native.measure('bf16'),
    int8: native.measure('int8'),
  };
}

/** Peaks that are measured again and again in the course of a benchmark, because other programs slow down some of the tries. */
export interface SpreadPeaks {
  /** The best rates so far. */
  best(): Machine;
  /** Measures once more if the last try is at least `milliseconds` ago. */
  tryAgain(milliseconds?: number): void;
  tries(): number;
}

/** The time between two tries: measuring takes about a twentieth of it. */
const BETWEEN_TRIES_MS = 20_000;

/** Measures once, and again whenever `tryAgain` is called late enough. */
export function spreadPeaks(measure: () => Machine = measureMachine, now: () => number = Date.now): SpreadPeaks {
  let machine = measure();
  let [last, count] = [now(), 1];
  return {
    best: () => machine,
    tryAgain: (milliseconds = BETWEEN_TRIES_MS) => {
      if (now() - last < milliseconds) return;
      machine = better(machine, measure());
      last = now();
      count++;
    },
    tries: () => count,
  };
}

/** The better of two measurements, because a peak is the best that the machine can do, and other programs may be running. */
export function better(a: Machine, b: Machine): Machine {
  return {
    ...a,
    read: Math.max(a.read, b.read),
    f32: Math.max(a.f32, b.f32),
    bf16: Math.max(a.bf16, b.bf16),
    int8: Math.max(a.int8, b.int8),
  };
}

/** The least microseconds of a piece of work: the larger of bytes over bandwidth and operations over the peak. */
export function limitOf(machine: Machine, work: { bytes: number; flops: number; in: Arithmetic }): number {
  const peak = machine[work.in] > 0 ? machine[work.in] : machine.f32;
  return 1e6 * Math.max(work.bytes / machine.read, work.flops / peak);
}

/** The rates as text. */
export function describeMachine(machine: Machine): string {
  const giga = (rate: number) => (rate / 1e9).toFixed(1);
  return [
    `processor  ${machine.processor}, ${machine.isa}, ${machine.threads} threads`,
    `read       ${giga(machine.read)} GB/s`,
    `f32        ${giga(machine.f32)} GFLOP/s`,
    `bf16 dot   ${machine.bf16 > 0 ? `${giga(machine.bf16)} GFLOP/s` : 'not at this level'}`,
    `int8       ${machine.int8 > 0 ? `${giga(machine.int8)} GOP/s` : 'not at this level'}`,
  ].join('\n');
}
