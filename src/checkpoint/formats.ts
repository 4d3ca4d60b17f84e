// The 4-bit layouts of published checkpoints: the shapes of their tensors and the place of each number in them. All hold the same numbers
// (a nibble per weight, scale and zero point per group), so one loop reads each layout and one writes it, and a conversion loses nothing.
// Source: AutoAWQ `awq/modules/linear/{gemm,gemv,gemv_fast}.py`, compressed-tensors `pack_quantized.py`, GPTQModel `nn_modules/qlinear`;
// see native/kernels/int4_formats.h.

import { SparseVilaError } from '../errors';
import type { QuantizedMatrix } from '../ops/quantize';
import type { Int4Format } from '../ops/weights';
import { decodeFloats, encodeFloats, type FloatDtype, fromF16Bits, toF16Bits } from './half';
import type { QuantizedModule } from './quantized';
import type { TensorEntry } from './safetensors';

/** The layouts that are written. */
export const QUANTIZED_FORMATS = ['autoawq', 'compressed-tensors'] as const;
export type QuantizedFormat = (typeof QUANTIZED_FORMATS)[number];

/** A tensor to be written: its type in safetensors' names, its shape, its bytes. */
export interface RawTensor {
  readonly name: string;
  readonly dtype: 'I64' | 'I32' | FloatDtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

type Shape = readonly number[];
/** The index of a number by output n and input k, or output n and group g. Nibbles of little-endian words are counted from the lowest. */
type At = (n: number, column: number) => number;

interface Layout {
  readonly shapes: { readonly weight: Shape; readonly scales: Shape; readonly zeros: Shape };
  readonly weight: At;
  readonly scale: At;
  readonly zero: At;
}

/** Words of zeros per output of AutoAWQ's gemv layouts (`calculate_zeros_width`); they have 8 scales per such word. */
function zeroWords(k: number, group: number): number {
  const unit = group >= 128 ? 1 : group === 64 ? 2 : 4;
  return Math.ceil(Math.ceil(k / group / 8) / unit) * unit;
}

/** The nibble of an AutoAWQ word that holds output n (mod 8). */
const AWQ_NIBBLE = [0, 4, 1, 5, 2, 6, 3, 7] as const;

/** The layout of a matrix of `rows` outputs and k inputs. A fraction among shapes fits no tensor. */
export const LAYOUTS: Readonly<Record<Int4Format, (rows: number, k: number, group: number) => Layout>> = {
  'awq-gemm': (rows, k, group) => {
    const nibble: At = (n, column) => column * rows + (n & ~7) + (AWQ_NIBBLE[n & 7] as number);
    const shapes = { weight: [k, rows / 8], scales: [k / group, rows], zeros: [k / group, rows / 8] };
    return { shapes, weight: nibble, scale: (n, g) => g * rows + n, zero: nibble };
  },
  'awq-gemv': (rows, k, group) => {
    const width = zeroWords(k, group);
    const at: At = (n, g) => n * 8 * width + g;
    const shapes = { weight: [rows, k / 8], scales: [rows, 8 * width], zeros: [rows, width] };
    return { shapes, weight: (n, i) => n * k + i, scale: at, zero: at };
  },
  'awq-gemv-fast': (rows, k, group) => {
    const scales = [8 * zeroWords(k, group), rows];
    const at: At = (n, g) => g * rows + n;
    const weight: At = (n, i) => {
      const column = 64 * (i >> 6) + 16 * (n & 3) + 8 * ((i >> 5) & 1) + (i & 7);
      return 4 * ((n >> 2) * k + column) + ((i >> 3) & 3);
    };
    return { shapes: { weight: [rows / 4, k], scales, zeros: scales }, weight, scale: at, zero: at };
  },
  'pack-quantized': (rows, k, group) => {
    const [words, groups] = [Math.ceil(k / 8), Math.ceil(k / group)];
    return {
      shapes: { weight: [rows, words], scales: [rows, groups], zeros: [Math.ceil(rows / 8), groups] },
      weight: (n, i) => 8 * n * words + i,
      scale: (n, g) => n * groups + g,
      zero: (n, g) => 8 * ((n >> 3) * groups + g) + (n & 7),
    };
  },
  gptq: (rows, k, group) => {
    const at: At = (n, g) => g * rows + n;
    const shapes = { weight: [k / 8, rows], scales: [k / group, rows], zeros: [k / group, rows / 8] };
    return { shapes, weight: (n, i) => 8 * ((i >> 3) * rows + n) + (i & 7), scale: at, zero: at };
  },
  'gptq-v2': (rows, k, group) => LAYOUTS.gptq(rows, k, group),
};

/** Outputs and inputs of a tile, chosen so that whole cache lines are used for either inner dimension. */
const TILE = { rows: 16, cols: 64 } as const;

/** Visits the rows of tiles: the number of the row, columns begin .. end - 1. */
function eachStretch(rows: number, cols: number, visit: (row: number, begin: number, end: number) => void): void {
  for (let first = 0; first < rows; first += TILE.rows)
    for (let begin = 0; begin < cols; begin += TILE.cols)
      for (let row = first; row < Math.min(rows, first + TILE.rows); row++)
        visit(row, begin, Math.min(cols, begin + TILE.cols));
}

/** The index of each column of row 0: an index is the sum of a term of the row and a term of the column. */
const ofColumns = (cols: number, at: At): Int32Array => Int32Array.from({ length: cols }, (_, col) => at(0, col));

function unpack(packed: Uint8Array, rows: number, cols: number, at: At): Uint8Array {
  const values = new Uint8Array(rows * cols);
  const columns = ofColumns(cols, at);
  eachStretch(rows, cols, (row, begin, end) => {
    const start = at(row, 0);
    for (let col = begin; col < end; col++) {
      const i = start + (columns[col] as number);
      values[row * cols + col] = ((packed[i >> 1] as number) >> (4 * (i & 1))) & 15;
    }
  });
  return values;
}

function pack(values: Uint8Array, rows: number, cols: number, { at, shape }: { at: At; shape: Shape }): Uint8Array {
  const packed = new Uint8Array(shape.reduce((size, length) => size * length, 4));
  const columns = ofColumns(cols, at);
  eachStretch(rows, cols, (row, begin, end) => {
    const start = at(row, 0);
    for (let col = begin; col < end; col++) {
      const i = start + (columns[col] as number);
      packed[i >> 1] = (packed[i >> 1] as number) | ((values[row * cols + col] as number) << (4 * (i & 1)));
    }
  });
  return packed;
}

/**
 * The exact numbers of a module in its layout; for gemv_fast, which stores -z s rounded to f16, the original z. Zero points
 * are 0 .. 15, or 16 in GPTQ v1.
 * @throws SparseVilaError `ERR_WEIGHT_VALUE` for a zero of gemv_fast that is not a product of its scale
 */
export function unpackQuantized(module: QuantizedModule, bytesOf: (entry: TensorEntry) => Uint8Array): QuantizedMatrix {
  const { rows, k: cols, group, format } = module;
  const { weight, scales, zeros } = module.tensors;
  const layout = LAYOUTS[format](rows, cols, group);
  const groups = Math.ceil(cols / group);
  const stored = decodeFloats(bytesOf(scales), scales.dtype as FloatDtype);
  const scale = Float32Array.from({ length: rows * groups }, (_, i) => {
    return stored[layout.scale(Math.floor(i / groups), i % groups)] as number;
  });
  const q = unpack(bytesOf(weight), rows, cols, layout.weight);
  if (zeros === undefined) return { rows, cols, group, q, scale, zero: new Uint8Array(rows * groups).fill(8) };
  if (format === 'awq-gemv-fast') {
    const products = decodeFloats(bytesOf(zeros), 'F16');
    const zero = scale.map((s, i) => zeroOf(products[layout.zero(Math.floor(i / groups), i % groups)] as number, s));
    const bad = zero.findIndex((z) => !(z >= 0 && z <= 16));
    if (bad >= 0) throw wrongZero(zeros, Math.floor(bad / groups), bad % groups, zero[bad] as number);
    return { rows, cols, group, q, scale, zero: Uint8Array.from(zero) };
  }
  const zero = unpack(bytesOf(zeros), rows, groups, layout.zero);
  return { rows, cols, group, q, scale, zero: format === 'gptq' ? zero.map((z) => z + 1) : zero };
}

/** The z for which `product` is -z s rounded to f16; not an integer if there is none. */
function zeroOf(product: number, scale: number): number {
  const z = scale === 0 ? 0 : Math.round(-product / scale);
  return fromF16Bits(toF16Bits(-z * scale)) === product ? z : -product / scale;
}

function wrongZero({ file, name }: TensorEntry, n: number, g: number, z: number): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_VALUE',
    `${file}: "${name}": the zero point of output ${n}, group ${g} is ${z}, expected a whole number from 0 to 16.`,
  );
}

/**
 * The tensors of a quantized matrix by their suffix: AutoAWQ gemm, or compressed-tensors pack-quantized. `symmetric` leaves zero points out
 * where a layout can.
 * @throws SparseVilaError `ERR_QUANTIZE_SHAPE` for AutoAWQ when outputs are not a multiple of 8, or inputs not one of the group
 */
export function packQuantized(matrix: QuantizedMatrix, format: QuantizedFormat, symmetric = false): RawTensor[] {
  const { rows, cols, group, q, scale, zero } = matrix;
  const isAwq = format === 'autoawq';
  const groups = Math.ceil(cols / group);
  if (isAwq && (rows % 8 !== 0 || cols % group !== 0)) throw awqShape(matrix);
  const { shapes, ...at } = LAYOUTS[isAwq ? 'awq-gemm' : 'pack-quantized'](rows, cols, group);
  const placed = new Float32Array(scale.length);
  for (const [i, value] of scale.entries()) placed[at.scale(Math.floor(i / groups), i % groups)] = value;
  const weight = pack(q, rows, cols, { at: at.weight, shape: shapes.weight });
  const words = (name: string, shape: Shape, bytes: Uint8Array): RawTensor => ({ name, dtype: 'I32', shape, bytes });
  const zeros = (name: string): RawTensor =>
    words(name, shapes.zeros, pack(zero, rows, groups, { at: at.zero, shape: shapes.zeros }));
  const scales = (name: string): RawTensor => {
    return { name, dtype: 'F16', shape: shapes.scales, bytes: encodeFloats(placed, 'F16') };
  };
  if (isAwq) return [words('qweight', shapes.weight, weight), zeros('qzeros'), scales('scales')];
  const size = new Uint8Array(BigInt64Array.of(BigInt(rows), BigInt(cols)).buffer);
  return [
    words('weight_packed', shapes.weight, weight),
    scales('weight_scale'),
    { name: 'weight_shape', dtype: 'I64', shape: [2], bytes: size },
    ...(symmetric ? [] : [zeros('weight_zero_point')]),
  ];
}

function awqShape({ rows, cols, group }: QuantizedMatrix): SparseVilaError {
  return new SparseVilaError(
    'ERR_QUANTIZE_SHAPE',
    `AutoAWQ's layout needs outputs that are a multiple of 8 and inputs that are a multiple of the group, received ` +
      `[${rows}, ${cols}] with groups of ${group}. Try another --group-size or --format compressed-tensors.`,
  );
}
