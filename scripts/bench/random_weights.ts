// Random weights of any shape, made on demand, so that speed can be measured at the shapes of real models without their files.
// All matrices share one random buffer as their source; each is packed into memory of its own.

import type { VectorSource, Weights } from '../../src/models/weights';
import { float32, int32 } from '../../src/ops/run';
import { recordValues } from '../../src/ops/vectors';
import {
  type Int4Part,
  type PackedMatrix,
  type Precision,
  packInt4,
  packInt8,
  packMatrix,
} from '../../src/ops/weights';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';

/** Matrices in bf16, in 4-bit symmetric groups of 128 (compressed-tensors) as AWQ checkpoints store them, or W8A8. */
export type RandomFormat = 'bf16' | 'awq' | 'w8a8';

export interface RandomWeights extends Weights {
  /** Bytes of packed matrices made so far. */
  readonly matrixBytes: number;
}

const GROUP = 128;

/** bf16 values of about ±scale as bits, deterministic. */
function randomBf16(count: number, scale: number): Uint16Array {
  const bits = new Uint16Array(count);
  const base = Math.round(Math.log2(scale)) + 127;
  let state = 0x9e3779b9;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bits[i] = ((state >>> 16) & 0x807f) | (base << 7);
  }
  return bits;
}

/** `largest`: elements of the largest matrix that will be asked for. Names in `plain` stay bf16. */
export function randomWeights(
  format: RandomFormat,
  largest: number,
  precision: Precision,
  plain: RegExp = /embed_tokens|lm_head/,
): RandomWeights {
  const { native } = start();
  const sources = [
    native.openMemory(randomBf16(largest, 2 ** -6)),
    native.openMemory(randomBf16(largest / GROUP + 64, 2 ** -9)),
  ];
  const [values, scales] = sources as [number, number];
  const made: Tensor[] = [];
  let matrixBytes = 0;
  const keep = (tensor: Tensor): Tensor => {
    made.push(tensor);
    return tensor;
  };
  const vector = (shape: readonly number[], value: number): Tensor =>
    keep(float32(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value), shape));
  const vectorOf = (source: VectorSource): number[] => {
    if (typeof source === 'number') return [source];
    return source.flatMap(([name, shape]) => {
      const length = typeof shape === 'number' ? shape : shape.reduce((size, one) => size * one, 1);
      return new Array<number>(length).fill(/norm.*weight/.test(name) ? 1 : 0.01);
    });
  };
  const matrix = (names: readonly string[], rows: readonly number[], k: number, gated: boolean): PackedMatrix => {
    if (format === 'w8a8')
      return packInt8(
        rows.map((n) => ({ source: values, offset: 0, type: 'bf16', rows: n })),
        k,
        { gated },
      );
    if (format === 'bf16' || k % GROUP !== 0 || names.some((name) => plain.test(name))) {
      return packMatrix(
        rows.map((n) => ({ source: values, offset: 0, type: 'bf16', rows: n })),
        k,
        { gated },
      );
    }
    const parts = rows.map(
      (n): Int4Part => ({ rows: n, weight: { source: values, offset: 0 }, scales: { source: scales, offset: 0 } }),
    );
    const layout = { format: 'pack-quantized', k, group: GROUP, storedGroup: GROUP, scaleType: 'bf16' } as const;
    return packInt4(parts, layout, { gated, precision });
  };
  return {
    has: (name) => name === 'lm_head.weight',
    typeOf: () => 'bf16',
    tensor: (name, shape) => vector(shape, /norm.*weight/.test(name) ? 1 : 0.01),
    record: (sources) => {
      const { values: filled, present } = recordValues(
        sources.map((source) => (source === undefined ? source : vectorOf(source))),
      );
      return { tensor: keep(float32(filled, [filled.length])), present };
    },
    matrix: (names, rows, k, { gated = false } = {}) => {
      const packed = matrix(names, rows, k, gated);
      matrixBytes += packed.tensor.size;
      keep(packed.tensor);
      return packed;
    },
    constant: (constants) => keep(float32(constants, [constants.length])),
    integers: (constants) => keep(int32(constants)),
    progress: { done: 0, total: 0 },
    get matrixBytes() {
      return matrixBytes;
    },
    close: () => {
      for (const source of sources) native.release(source);
    },
    dispose: () => {
      for (const tensor of made.splice(0)) tensor.dispose();
    },
  };
}
