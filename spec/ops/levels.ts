// Shared by the specs of ops: running at instruction-set levels and thread counts, which are restored, and comparing bits.

import { floats } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';

/** The levels that this processor has, the plainest first. */
export function levels(): string[] {
  const features = start().native.cpuFeatures();
  return [
    'portable',
    ...['avx2', 'avx512', 'avx512bf16', 'avx512amx', 'neon', 'dotprod', 'i8mm', 'bf16'].filter(
      (name) => features[name] === true,
    ),
  ];
}

/** Runs `body` at a level. */
export function atLevel<T>(level: string, body: () => T): T {
  const { native } = start();
  const before = native.isa();
  native.isa(level);
  try {
    return body();
  } finally {
    native.isa(before);
  }
}

/** Runs `body` with a number of threads. */
export function withThreads<T>(count: number, body: () => T): T {
  const { native } = start();
  const before = native.threads();
  native.threads(count);
  try {
    return body();
  } finally {
    native.threads(before);
  }
}

/** The bit patterns of outputs, which are disposed of. NaN with equal payloads is equal here. */
export function bitsOf(outputs: readonly Tensor[]): Uint32Array[] {
  return outputs.map((output) => {
    const bits = Uint32Array.from(wordsOf(floats(output)));
    output.dispose();
    return bits;
  });
}

/** The words of f32 values, without a copy. */
export function wordsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

/** A description of the difference in bits between two results; undefined if there is none. `width` is that of a row. */
export function difference(
  actual: readonly Uint32Array[],
  expected: readonly Uint32Array[],
  width = 1,
): string | undefined {
  if (actual.length !== expected.length) return `${actual.length} outputs instead of ${expected.length}`;
  for (const [o, e] of expected.entries()) {
    const a = actual[o] ?? new Uint32Array();
    if (a.length !== e.length) return `output ${o} has ${a.length} elements instead of ${e.length}`;
    const count = e.reduce((sum, word, i) => sum + Number(word !== a[i]), 0);
    if (count === 0) continue;
    const i = e.findIndex((word, at) => word !== a[at]);
    const [x, y] = [a, e].map((words) => new Float32Array(words.buffer, words.byteOffset, words.length)[i]);
    return `output ${o} differs in ${count} of ${e.length} elements, first at row ${Math.floor(i / width)}, column ${i % width}: ${x} instead of ${y}`;
  }
  return undefined;
}

/** Fails with the likely cause when bits differ. */
export function expectSameBits(
  actual: readonly Uint32Array[],
  expected: readonly Uint32Array[],
  where: string,
  likelyCause: string,
  width = 1,
): void {
  const found = difference(actual, expected, width);
  if (found !== undefined) throw new Error(`${where}: ${found}. Likely cause: ${likelyCause}`);
  expect(found).toBeUndefined(); // counts as an assertion
}
