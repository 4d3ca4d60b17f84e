// What the image specs share: fixture files, slices of the expected arrays, exact comparison, and the error of a call.
// Knows nothing about what is tested. Source: scripts/fixtures/image.py.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SparseVilaError } from '../../src/errors';
import type { RgbImage } from '../../src/image/decode';
import type { Normalization } from '../../src/image/preprocessor_config';
import { patchValues, pixelTables } from '../../src/models/patches';

const ROOT = join(__dirname, '../../../spec/fixtures');

export const fixture = (name: string) => join(ROOT, 'image', name);
export const scene = (name: string) => join(ROOT, '../../assets/calibration', name);
export const bytesOf = (name: string) => readFileSync(fixture(name));

export interface Slice {
  offset: number;
  length: number;
}

/** The manifest and the arrays of one fixture: `array` gives a copy of a slice. */
export function readCases<T>(name: string): { cases: T[]; array: (slice: Slice) => Uint8Array } {
  const { cases } = JSON.parse(readFileSync(fixture(`${name}.json`), 'utf8')) as { cases: T[] };
  const blob = readFileSync(fixture(`${name}.bin`));
  return { cases, array: ({ offset, length }) => new Uint8Array(blob.subarray(offset, offset + length)) };
}

/** The largest difference and how many samples differ; arrays of different lengths have an infinite difference. */
export function difference(got: ArrayLike<number>, expected: ArrayLike<number>): { largest: number; samples: number } {
  if (got.length !== expected.length) return { largest: Number.POSITIVE_INFINITY, samples: got.length };
  let largest = 0;
  let samples = 0;
  for (let i = 0; i < got.length; i++) {
    const d = Math.abs((got[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    if (d === 0) continue;
    samples++;
    largest = Number.isNaN(d) ? Number.POSITIVE_INFINITY : Math.max(largest, d);
  }
  return { largest, samples };
}

export const EXACT = { largest: 0, samples: 0 };

/** A canvas as f32 [3, height, width]. */
export function planes(image: RgbImage, normalization: Normalization): Float32Array {
  const { width, height } = image;
  const tables = pixelTables(normalization);
  const y = new Float32Array(3 * width * height);
  for (let at = 0; at < width * height; at++) {
    const corners = Int32Array.of(0, Math.floor(at / width), at % width);
    const patch = { corners, segments: Int32Array.of(0, 1) };
    const values = patchValues([image], patch, { begin: 0, end: 1 }, { patchSize: 1, patchFrames: 1 }, tables);
    for (const [c, value] of values.entries()) y[c * width * height + at] = value;
  }
  return y;
}

/** A picture of seeded noise (xorshift32). */
export function noise(width: number, height: number, seed = 1): RgbImage {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, state = seed; i < data.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    data[i] = state & 255;
  }
  return { data, width, height };
}

/** The SparseVilaError that `call` throws or rejects with; fails if there is none or it is another. */
export async function errorOf(call: () => unknown): Promise<SparseVilaError> {
  try {
    await call();
  } catch (error) {
    if (error instanceof SparseVilaError) return error;
    throw error;
  }
  throw new Error('Expected an error but the call succeeded.');
}
