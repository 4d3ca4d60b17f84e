// Weight tensors made straight from a source (a mapped checkpoint file, or a typed array): packed matrices for the matrix
// products, and f32 tensors for norms and biases. Knows nothing about checkpoints' names.

import type { Tensor } from '@tensorflow/tfjs-core';
import { SparseVilaError } from '../errors';
import { start } from '../runtime/start';
import { run, withInt32 } from './run';

/** How a matrix is stored. Products accumulate in f32 whatever the storage. */
export type WeightType = 'f32' | 'f16' | 'bf16';
const TYPE_CODE: Readonly<Record<WeightType, number>> = { f32: 0, f16: 1, bf16: 2 };
export const WEIGHT_BYTES: Readonly<Record<WeightType, number>> = { f32: 4, f16: 2, bf16: 2 };

/** A row-major [rows, k] matrix, or any tensor, inside a source. */
export interface WeightPart {
  /** From `mapFile` or `mapMemory`. */
  readonly source: number;
  /** Bytes from the source's start. */
  readonly offset: number;
  readonly type: WeightType;
  readonly rows: number;
}

/** A matrix [outputs, inputs] in the kernels' layout: opaque bytes, read by ops only. */
export interface PackedMatrix {
  readonly tensor: Tensor;
  readonly outputs: number;
  readonly inputs: number;
  readonly type: WeightType;
  /** Gate and up interleaved: a product yields silu(x G^T) * (x U^T). */
  readonly gated: boolean;
}

export interface PackOptions {
  /** Storage; default that of the first part. */
  readonly type?: WeightType;
  /** Two parts, gate and up, of equal rows. */
  readonly gated?: boolean;
  /** Round activations to bf16 where the processor multiplies bf16 faster than f32 (error about 1e-6 NMSE). */
  readonly roundActivations?: boolean;
}

const words = (offset: number): [number, number] => [offset | 0, Math.floor(offset / 2 ** 32)];

/**
 * Packs parts, stacked along rows, of k inputs each.
 * Throws `ERR_WEIGHT` when a part lies outside its source.
 */
export function packMatrix(parts: readonly WeightPart[], k: number, options: PackOptions = {}): PackedMatrix {
  const first = parts[0];
  if (first === undefined)
    throw new SparseVilaError('ERR_WEIGHT', 'packMatrix: expected at least one part, received none.');
  const { type = first.type, gated = false, roundActivations = false } = options;
  const recipe = [TYPE_CODE[type], Number(gated), Number(roundActivations), k];
  for (const part of parts) recipe.push(part.source, ...words(part.offset), TYPE_CODE[part.type], part.rows);
  const tensor = withInt32(recipe, (r) => run('SvPack', [r]));
  const outputs = gated ? first.rows : parts.reduce((sum, part) => sum + part.rows, 0);
  return { tensor, outputs, inputs: k, type, gated };
}

/** An f32 tensor of the given shape, widened from the source's type. `rows` of the part is not used. */
export function loadTensor(part: Omit<WeightPart, 'rows'>, shape: readonly number[]): Tensor {
  return withInt32([part.source, ...words(part.offset), TYPE_CODE[part.type], ...shape], (r) => run('SvLoad', [r]));
}

/** Packs an f32 matrix [rows, k] (or gate and up) that JavaScript holds. For tests, benchmarks and small models. */
export function packArrays(matrices: readonly Float32Array[], k: number, options: PackOptions = {}): PackedMatrix {
  const { native } = start();
  const sources = matrices.map((matrix) => native.mapMemory(matrix));
  try {
    const parts = matrices.map((matrix, i) => ({
      source: sources[i] as number,
      offset: 0,
      type: 'f32' as const,
      rows: matrix.length / k,
    }));
    return packMatrix(parts, k, options);
  } finally {
    for (const source of sources) native.release(source);
  }
}
