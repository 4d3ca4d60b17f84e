// Random tensors of checkpoints, drawn when they are written: normal numbers in bf16, with the large channels that trained models have.

import { fromBf16Bits, toBf16Bits } from '../../src/checkpoint/half';
import type { TensorSource } from '../../src/checkpoint/safetensors_writer';

/** One channel in this many is 8 times as large as the others, as in trained models: without large channels AWQ has no effect. */
const OUTLIER = 97;
const LARGE = 3;
const POOL = 2 ** 22;
const PIECE = 2 ** 16;

/** Normal numbers of standard deviation 2^power as bf16 bits. */
export type Draw = (count: number, power: number) => Uint16Array;

export function normals(): Draw {
  let state = 0x9e3779b9;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  const drawn = Float64Array.from({ length: POOL }, normal);
  const pools = new Map<number, Uint16Array>();
  return (count, power) => {
    const pool = pools.get(power) ?? Uint16Array.from(drawn, (x) => toBf16Bits(x * 2 ** power));
    pools.set(power, pool);
    const values = new Uint16Array(count);
    for (let at = 0; at < count; ) {
      // Pieces of uneven length from anywhere, so that rows do not repeat.
      const from = Math.floor(uniform() * (POOL - PIECE));
      const piece = pool.subarray(from, from + Math.min(count - at, 1 + Math.floor(uniform() * PIECE)));
      values.set(piece, at);
      at += piece.length;
    }
    return values;
  };
}

const isLarge = (channel: number): boolean => channel % OUTLIER === 41;

/** A tensor that is drawn when it is written. */
export function tensor(name: string, shape: readonly number[], make: (count: number) => Uint16Array): TensorSource {
  const count = shape.reduce((a, b) => a * b, 1);
  return { name, dtype: 'BF16', shape, byteLength: 2 * count, bytes: () => new Uint8Array(make(count).buffer) };
}

/** Multiplies the large rows of a matrix of `cols` columns; a vector has one. Adds to the exponents. */
export function withLargeRows(bits: Uint16Array, cols: number): Uint16Array {
  for (let row = 0; row < bits.length / cols; row++)
    if (isLarge(row)) for (let i = row * cols; i < (row + 1) * cols; i++) bits[i] = (bits[i] as number) + (LARGE << 7);
  return bits;
}

/** A norm's weights: about 1, some channels large. */
export function norm(name: string, width: number, draw: Draw): TensorSource {
  return tensor(name, [width], (count) => {
    const spread = draw(count, -3);
    return withLargeRows(
      spread.map((bits) => toBf16Bits(1 + fromBf16Bits(bits))),
      1,
    );
  });
}

/** The power of two nearest to 1 / sqrt(inputs): outputs are about as large as inputs. */
export const powerOf = (inputs: number): number => -Math.round(Math.log2(inputs) / 2);
