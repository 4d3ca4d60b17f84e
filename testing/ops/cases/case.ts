// A case of the op table: one call of an op with seeded inputs, which is compared with its reference and timed. The spec runs
// the small ones at every instruction-set level, the benchmark the big ones. Knows no op.

import { floats } from '../../../src/ops/run';
import type { PackedMatrix } from '../../../src/ops/weights';
import type { Tensor } from '../../../src/runtime/tensor';
import { nmse, type Tolerance } from '../tolerance';

/** One output compared with its reference, by `nmse`. */
export interface Comparison {
  readonly output: string;
  readonly error: number;
}

export interface PreparedCase {
  /** One call, as a model makes it. The caller disposes of the outputs. Equal calls give equal bits. */
  run(): Tensor[];
  /** One call compared with the reference in double precision; big cases on a sample of rows or elements. */
  check(): Comparison[];
  /** Bytes that a call must at least read and write: weights and inputs once, outputs once. */
  readonly bytes: number;
  /** Floating-point operations of the matrix products and of attention; the rest is not counted. */
  readonly flops: number;
  dispose(): void;
}

export interface OpCase {
  readonly op: string;
  /** The sizes, in the op's own words. */
  readonly name: string;
  /** Of weights or cache; `bf16 dot` where activations are rounded too. */
  readonly dtype: 'f32' | 'f16' | 'bf16' | 'bf16 dot' | 'int4' | 'int4 fast' | 'int8';
  /** Whether levels with matrix tiles compute in another order, whatever the dtype. */
  readonly tiles?: boolean;
  readonly tolerance: Tolerance;
  /** Big cases are for the benchmark. */
  readonly big: boolean;
  prepare(): PreparedCase;
}

/**
 * What a memory-bound big case reads before it reads the same memory again: its weights or cache are copied until the copies
 * add up to this, and calls take turns. It is twice the last-level cache up to 256 MB of that (a server's is shared with
 * strangers anyway), and no more, so that the benchmark fits into small machines.
 */
export const COLD_BYTES = 512 * 2 ** 20;

/** How many copies of something that large a memory-bound case takes turns with. */
export function coldCopies(bytes: number): number {
  return Math.max(2, Math.ceil(COLD_BYTES / bytes));
}

/** The items in turn, for ever. */
export function inTurn<T>(items: readonly T[]): () => T {
  let at = 0;
  return () => items[at++ % items.length] as T;
}

/** A value computed at the first call and kept: references are dear, and a case is checked at every level. */
export function once<T>(compute: () => T): () => T {
  let value: { readonly of: T } | undefined;
  return () => {
    value ??= { of: compute() };
    return value.of;
  };
}

/** Collects what a case makes, so that its `dispose` forgets nothing. */
export interface Keeper {
  tensor(tensor: Tensor): Tensor;
  matrix(matrix: PackedMatrix): PackedMatrix;
  /** Tensors kept. */
  count(): number;
  dispose(): void;
}

export function keeper(): Keeper {
  const kept = new Set<Tensor>();
  return {
    tensor(tensor) {
      kept.add(tensor);
      return tensor;
    },
    matrix(matrix) {
      kept.add(matrix.tensor);
      return matrix;
    },
    count: () => kept.size,
    dispose() {
      for (const tensor of kept) tensor.dispose();
      kept.clear();
    },
  };
}

/** Reads outputs and disposes of them. */
export function take(outputs: readonly Tensor[]): Float32Array[] {
  const values = outputs.map(floats);
  for (const output of outputs) output.dispose();
  return values;
}

/** The comparison of one output. */
export function compare(output: string, actual: ArrayLike<number>, expected: ArrayLike<number>): Comparison {
  return { output, error: nmse(actual, expected) };
}
