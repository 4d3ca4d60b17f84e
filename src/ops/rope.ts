// Rotary position embedding (Su et al. 2021) in the half-rotation form of Llama and Qwen2.

import type { Tensor } from '../runtime/tensor';
import { float32, run } from './run';

/** The position of a row: one number on every axis, or one for each of the axes time, row and column (M-RoPE, arXiv 2409.12191, section 2.1). */
export type Position = number | readonly [time: number, row: number, column: number];

/**
 * cos and sin of position * inverseFrequency as f32 [2, t, c / 2]. Angles are computed in double precision from
 * frequencies that were rounded to f32, as Hugging Face's are; the product is rounded to f32 first, as there.
 * @param axes uint8 [c / 2]: the axis whose position turns each frequency; absent: time
 */
export function ropeTable(
  positions: ArrayLike<Position>,
  inverseFrequencies: Float64Array,
  axes: Uint8Array = new Uint8Array(inverseFrequencies.length),
): Tensor {
  const t = positions.length;
  const half = inverseFrequencies.length;
  const table = new Float32Array(2 * t * half);
  for (let i = 0; i < t; i++)
    for (let j = 0; j < half; j++) {
      const given = positions[i] as Position;
      const position = typeof given === 'number' ? given : (given[axes[j] as number] as number);
      const angle = Math.fround(position * Math.fround(inverseFrequencies[j] as number));
      table[i * half + j] = Math.cos(angle);
      table[(t + i) * half + j] = Math.sin(angle);
    }
  return float32(table, [2, t, half]);
}

/** (a, b) -> (a cos - b sin, b cos + a sin) on the halves of every head; x f32 [t, h, c]. */
export function rope(x: Tensor, table: Tensor): Tensor {
  return run('SvRope', [x, table]);
}
