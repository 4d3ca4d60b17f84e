// Weights of op cases in every data type, including 4 and 8 bits. A matrix is an array of values that its data type holds
// exactly, so the reference reads the very weights that the op multiplies with. Knows no op.

import {
  type Int4Layout,
  type Int4Part,
  type PackedMatrix,
  type PackOptions,
  packArrays,
  packInt4,
  packInt8,
  WEIGHT_BYTES,
  type WeightType,
} from '../../../src/ops/weights';
import { start } from '../../../src/runtime/start';
import type { Tolerance } from '../tolerance';
import { noise, weightValues } from './data';

/** Storage of a matrix, and for 4 bits how products round activations. */
export type StoredType = WeightType | 'int4' | 'int4 fast' | 'int8';

/** How a 4-bit matrix is divided: w = (q - z) s. */
export interface Int4Grid {
  /** Inputs per scale; `row`: all of them. */
  readonly group: number | 'row';
  /** Inputs per scale as stored. */
  readonly stored: 32 | 64 | 128;
  /** none: symmetric, z = 8; scaled: -z s is stored instead of z (inputs a multiple of 64, outputs of 4). */
  readonly zeros: 'none' | 'integer' | 'scaled';
  readonly scales: 'f16' | 'bf16';
}

export const INT4_GRID: Int4Grid = { group: 'row', stored: 64, zeros: 'integer', scales: 'f16' };

export const isInt4 = (type: StoredType): type is 'int4' | 'int4 fast' => type === 'int4' || type === 'int4 fast';

/** How far a product with such a matrix may lie from its reference. */
export function toleranceOf(type: StoredType, dot = false): Tolerance {
  if (type === 'int4') return 'int4Exact';
  if (type === 'int4 fast') return 'int4Fast';
  if (type === 'int8') return 'int8Activations';
  return dot ? 'bf16Activations' : 'f32';
}

/** Bytes that a product reads of a matrix. */
export function storedBytes(type: StoredType, rows: number, k: number, { stored }: Int4Grid = INT4_GRID): number {
  if (isInt4(type)) return rows * (Math.ceil(k / 2) + 4 * Math.ceil(k / stored));
  return type === 'int8' ? rows * (k + 8) : rows * k * WEIGHT_BYTES[type];
}

/** A matrix [rows, k] that the storage holds exactly, scaled so that products keep their inputs' size. */
export function storedValues(seed: string, rows: number, k: number, type: StoredType, grid = INT4_GRID): Float32Array {
  if (type !== 'int8' && !isInt4(type)) return weightValues(seed, rows, k, type);
  const values = noise(seed, rows * k, 1 / Math.sqrt(k));
  const group = type === 'int8' ? k : groupOf(grid, k);
  for (let row = 0; row < rows; row++)
    for (let at = row * k; at < (row + 1) * k; at += group) {
      const part = values.subarray(at, at + group);
      if (type === 'int8') roundToInt8(part);
      else roundToInt4(part, grid.zeros);
    }
  return values;
}

export interface StoreOptions extends Pick<PackOptions, 'gated' | 'roundActivations'> {
  readonly grid?: Int4Grid;
}

/** Packs matrices that `storedValues` made, stacked or gate and up; every call of the result packs once more. */
export function packer(
  matrices: readonly Float32Array[],
  k: number,
  type: StoredType,
  { grid = INT4_GRID, ...options }: StoreOptions = {},
): () => PackedMatrix {
  if (isInt4(type)) {
    const parts = matrices.map((values) => encode(values, k, grid));
    const precision = type === 'int4' ? 'exact' : 'fast';
    return () => packEncoded(parts, layoutOf(grid, k), { gated: options.gated ?? false, precision });
  }
  if (type !== 'int8') return () => packArrays(matrices, k, { ...options, type });
  return () =>
    mapped(matrices, (sources) =>
      packInt8(
        matrices.map((values, i) => ({ ...rangeOf(sources, i), rows: values.length / k, type: 'f32' as const })),
        k,
        { gated: options.gated ?? false },
      ),
    );
}

// --- grids of values -------------------------------------------------------------------------------------------

const groupOf = ({ group }: Int4Grid, k: number): number => (group === 'row' ? k : group);

/** x rounded to so many significant bits (Veltkamp's splitting). */
function significant(x: number, bits: number): number {
  const c = x * (2 ** (53 - bits) + 1);
  return c - (c - x);
}

/** Scales of few bits: f16 and bf16 hold them, f16 holds z s, and f32 every product. */
const SCALE_BITS = 7;

/**
 * Scale and zero of a group. The extremes lie on the grid's ends after rounding, so rounded values lead to the same scale and
 * zero again: nothing but the values has to be handed on.
 */
function gridOf(group: Float32Array, zeros: Int4Grid['zeros']): { s: number; z: number; low: number; high: number } {
  let [low, high] = [0, 0];
  for (const value of group) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const range = zeros === 'none' ? Math.max(-low, high) / 7 : (high - low) / 15;
  const s = range === 0 ? 1 : significant(range, SCALE_BITS);
  return { s, z: zeros === 'none' ? 8 : Math.round(-low / s), low, high };
}

function nibbleOf(value: number, { s, z, high }: ReturnType<typeof gridOf>, zeros: Int4Grid['zeros']): number {
  if (zeros !== 'none' && value > 0 && value === high) return 15;
  return Math.min(15, Math.max(0, z - Math.round(-value / s)));
}

function roundToInt4(group: Float32Array, zeros: Int4Grid['zeros']): void {
  const grid = gridOf(group, zeros);
  for (let i = 0; i < group.length; i++) group[i] = (nibbleOf(group[i] as number, grid, zeros) - grid.z) * grid.s;
}

/** One scale for the row; 127 times it is exact in f32, so packing finds the same one. */
function roundToInt8(row: Float32Array): void {
  const top = row.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const s = top === 0 ? 1 : significant(top / 127, 12);
  for (let i = 0; i < row.length; i++) row[i] = Math.round((row[i] as number) / s) * s + 0; // no -0
}

// --- files as the formats have them ----------------------------------------------------------------------------

interface Encoded {
  readonly rows: number;
  readonly weight: Uint8Array | Uint16Array;
  readonly scales: Float32Array | Uint16Array;
  readonly zeros: Uint8Array | Uint16Array | undefined;
}

const word = new Float32Array(1);
const bits = new Uint32Array(word.buffer);
/** The upper half of an f32: exact for values that bf16 holds. */
function bf16Bits(x: number): number {
  word[0] = x;
  return (bits[0] as number) >>> 16;
}
/** The f16 of a value that it holds as a normal number, or of 0. */
function f16Bits(x: number): number {
  word[0] = x;
  const u = bits[0] as number;
  const size = u & 0x7fffffff;
  return ((u >>> 16) & 0x8000) | (size === 0 ? 0 : (size - 0x38000000) >>> 13);
}

function layoutOf(grid: Int4Grid, k: number): Int4Layout {
  return {
    format: grid.zeros === 'scaled' ? 'awq-gemv-fast' : 'pack-quantized',
    k,
    group: groupOf(grid, k),
    storedGroup: grid.stored,
    scaleType: grid.scales === 'bf16' ? 'bf16' : 'f32', // f32 scales that f16 holds are stored as f16
  };
}

/** pack-quantized, or awq-gemv-fast for scaled zeros. Where nibbles lie: native/kernels/int4_formats.h. */
function encode(values: Float32Array, k: number, grid: Int4Grid): Encoded {
  const fast = grid.zeros === 'scaled';
  const [rows, group] = [values.length / k, groupOf(grid, k)];
  const groups = k / group;
  const rowBytes = fast ? k / 2 : 4 * Math.ceil(k / 8);
  const weight = new Uint8Array(rows * rowBytes);
  const scaleRows = fast ? gemvFastGroups(k, group) : groups;
  const scales = grid.scales === 'bf16' ? new Uint16Array(scaleRows * rows) : new Float32Array(scaleRows * rows);
  const zeros = fast ? new Uint16Array(scaleRows * rows) : new Uint8Array(4 * Math.ceil(rows / 8) * groups);
  for (let row = 0; row < rows; row++)
    for (let g = 0; g < groups; g++) {
      const start = row * k + g * group;
      const part = gridOf(values.subarray(start, start + group), grid.zeros);
      for (let c = g * group; c < (g + 1) * group; c++) {
        const nibble = nibbleOf(values[row * k + c] as number, part, grid.zeros);
        const at = fast ? gemvFastNibble(row, c, k) : 2 * row * rowBytes + c;
        weight[at >> 1] = (weight[at >> 1] as number) | (nibble << (4 * (at & 1)));
      }
      const at = fast ? g * rows + row : row * groups + g;
      scales[at] = grid.scales === 'bf16' ? bf16Bits(part.s) : part.s;
      if (fast) zeros[at] = f16Bits(-part.z * part.s);
      else {
        const place = 8 * (Math.floor(row / 8) * groups + g) + (row % 8);
        zeros[place >> 1] = (zeros[place >> 1] as number) | (part.z << (4 * (place & 1)));
      }
    }
  return { rows, weight, scales, zeros: grid.zeros === 'none' ? undefined : zeros };
}

/** Which nibble of the whole file holds row n, input k: word [n/4][64 (k/64) + 16 (n%4) + 8 (k/32 % 2) + k%8], nibble k/8 % 4. */
function gemvFastNibble(n: number, c: number, k: number): number {
  const at = Math.floor(n / 4) * k + (c & ~63) + 16 * (n % 4) + 8 * ((c >> 5) & 1) + (c & 7);
  return 4 * at + ((c >> 3) & 3);
}

/** Rows of scales in an awq-gemv-fast file: the groups, filled up as AutoAWQ does. */
function gemvFastGroups(k: number, group: number): number {
  const multiple = group >= 128 ? 1 : group === 64 ? 2 : 4;
  return 8 * multiple * Math.ceil(Math.ceil(k / group / 8) / multiple);
}

// --- packing ----------------------------------------------------------------------------------------------------

const rangeOf = (sources: readonly number[], i: number) => ({ source: sources[i] as number, offset: 0 });

/** Runs `body` with arrays as sources. */
function mapped<T>(arrays: readonly ArrayBufferView[], body: (sources: number[]) => T): T {
  const { native } = start();
  const sources = arrays.map((array) => native.openMemory(array));
  try {
    return body(sources);
  } finally {
    for (const source of sources) native.release(source);
  }
}

function packEncoded(
  encoded: readonly Encoded[],
  layout: Int4Layout,
  options: { readonly gated: boolean; readonly precision: 'exact' | 'fast' },
): PackedMatrix {
  const arrays = encoded.flatMap(({ weight, scales, zeros = weight }) => [weight, scales, zeros]);
  return mapped(arrays, (sources) => {
    const parts: Int4Part[] = encoded.map(({ rows, zeros }, i) => ({
      rows,
      weight: rangeOf(sources, 3 * i),
      scales: rangeOf(sources, 3 * i + 1),
      zeros: zeros && rangeOf(sources, 3 * i + 2),
    }));
    return packInt4(parts, layout, options);
  });
}
