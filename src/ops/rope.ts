// Rotary position embedding (Su et al. 2021) in the half-rotation form of Llama and Qwen2.

import type { Tensor } from '../runtime/tensor';
import { float32, run } from './run';

/** The position of a row: one number on every axis, or one for each of the axes time, row and column (M-RoPE, arXiv 2409.12191, section 2.1). */
export type Position = number | readonly [time: number, row: number, column: number];

/** A rotary embedding: its inverse frequencies, float64 [c / 2], and uint8 [c / 2], the axis whose position turns each; absent: time. */
export interface RotaryEmbedding {
  readonly frequencies: Float64Array;
  readonly axes?: Uint8Array | undefined;
}

/**
 * cos and sin of position * inverseFrequency as f32 [2, t, c / 2]. Angles are computed in double precision from
 * frequencies that were rounded to f32, as Hugging Face's are; the product is rounded to f32 first, as there.
 */
export function ropeTable(positions: ArrayLike<Position>, frequencies: Float64Array, axes?: Uint8Array): Tensor {
  return ropeTables(positions, [{ frequencies, axes }]);
}

/** The tables of several rotary embeddings of equal width, one behind the other: f32 [2 embeddings, t, c / 2]. */
export function ropeTables(positions: ArrayLike<Position>, embeddings: readonly RotaryEmbedding[]): Tensor {
  const t = positions.length;
  const half = embeddings[0]?.frequencies.length ?? 0;
  const table = new Float32Array(2 * embeddings.length * t * half);
  for (const [at, { frequencies, axes }] of embeddings.entries())
    for (let i = 0; i < t; i++)
      for (let j = 0; j < half; j++) {
        const given = positions[i] as Position;
        const position = typeof given === 'number' ? given : (given[axes?.[j] ?? 0] as number);
        const angle = Math.fround(position * Math.fround(frequencies[j] as number));
        table[(2 * at * t + i) * half + j] = Math.cos(angle);
        table[((2 * at + 1) * t + i) * half + j] = Math.sin(angle);
      }
  return float32(table, [2 * embeddings.length, t, half]);
}

/** (a, b) -> (a cos - b sin, b cos + a sin) on the halves of every head; x f32 [t, h, c]. */
export function rope(x: Tensor, table: Tensor): Tensor {
  return run('SvRope', [x, table]);
}
