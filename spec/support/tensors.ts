// Expected tensors of a fixture, by name. Does not know their meaning.

import { readFileSync } from 'node:fs';
import { readSafetensorsHeader, readTensor, type TensorEntry } from '../../src/checkpoint/safetensors';

export interface Expected {
  f32(name: string): Float32Array;
  u8(name: string): Uint8Array;
  /** int64 as numbers: ids and indices. */
  ids(name: string): number[];
  shape(name: string): readonly number[];
  has(name: string): boolean;
}

export function readExpected(file: string): Expected {
  const entries = new Map(readSafetensorsHeader(file).map((entry) => [entry.name, entry]));
  const find = (name: string): TensorEntry => {
    const entry = entries.get(name);
    if (entry === undefined) throw new Error(`${file} has no ${name}, only ${[...entries.keys()].join(', ')}`);
    return entry;
  };
  return {
    has: (name) => entries.has(name),
    shape: (name) => find(name).shape,
    f32: (name) => readTensor(find(name)),
    u8: (name) => {
      const { dtype, offset, bytes } = find(name);
      if (dtype !== 'U8') throw new Error(`${name} is ${dtype}, not U8`);
      return readFileSync(file).subarray(offset, offset + bytes);
    },
    ids: (name) => {
      const { dtype, offset, bytes } = find(name);
      if (dtype !== 'I64') throw new Error(`${name} is ${dtype}, not I64`);
      const data = readFileSync(file).subarray(offset, offset + bytes);
      return Array.from({ length: bytes / 8 }, (_, i) => Number(data.readBigInt64LE(8 * i)));
    },
  };
}

/** Rows of a flat [n, width] array. */
export function rowsOf<T>(flat: readonly T[], width: number): T[][] {
  return Array.from({ length: flat.length / width }, (_, i) => flat.slice(i * width, (i + 1) * width));
}
