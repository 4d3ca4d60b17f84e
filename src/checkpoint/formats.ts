// The layouts of published 4-bit checkpoints, both ways: AutoAWQ gemm and compressed-tensors pack-quantized. All hold the
// same numbers (nibbles, scale, zero point per group), so a conversion is a permutation and loses nothing.
// Source: AutoAWQ `awq/modules/linear/gemm.py`, `utils/packing_utils.py`; compressed-tensors `pack_quantized.py`.

import { SparseVilaError } from '../errors';
import { decodeFloats, toF16Bits } from './half';
import type { QuantizedMatrix } from './round';

export const QUANTIZED_FORMATS = ['autoawq', 'compressed-tensors'] as const;
export type QuantizedFormat = (typeof QUANTIZED_FORMATS)[number];

/** A tensor to be written: its type as safetensors names it, its shape, its bytes. */
export interface RawTensor {
  readonly name: string;
  readonly dtype: 'I64' | 'I32' | 'F16' | 'BF16' | 'F32';
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** The parts of one quantised matrix as a checkpoint holds them, by their suffix (`qweight`, …). */
export type QuantizedParts = ReadonlyMap<string, RawTensor>;

/** Which nibble of an AutoAWQ word holds column j (mod 8). */
const AWQ_NIBBLE = [0, 4, 1, 5, 2, 6, 3, 7] as const;

const bytesOf = (array: Int32Array | Uint16Array | BigInt64Array): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const wordsOf = ({ bytes }: RawTensor): Int32Array => new Int32Array(bytes.slice().buffer);

function halves(values: Float32Array, at: (i: number) => number = (i) => i): Uint16Array {
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) bits[i] = toF16Bits(values[at(i)] as number);
  return bits;
}

/** Rows of `packTransposed` at a time: a cache line of each column. */
const LINE = 64;

/** Nibble values [cols, rows], transposed, into words of 8 along the columns in AutoAWQ's order: int32 [rows, cols / 8]. */
function packTransposed(values: Uint8Array, rows: number, cols: number): Int32Array {
  const words = cols / 8;
  const packed = new Int32Array(rows * words);
  for (let first = 0; first < rows; first += LINE)
    for (let word = 0; word < words; word++)
      for (let row = first; row < Math.min(rows, first + LINE); row++) {
        let bits = 0;
        for (let i = 0; i < 8; i++)
          bits |= (values[(8 * word + i) * rows + row] as number) << (4 * (AWQ_NIBBLE[i] as number));
        packed[row * words + word] = bits;
      }
  return packed;
}

/** Nibble values [rows, cols] into words of 8 along the columns, in order: int32 [rows, ceil(cols / 8)]. */
function packRows(values: Uint8Array, rows: number, cols: number): Int32Array {
  const words = Math.ceil(cols / 8);
  const packed = new Int32Array(rows * words);
  for (let row = 0; row < rows; row++)
    for (let col = 0; col < cols; col++) {
      const word = row * words + (col >> 3);
      packed[word] = (packed[word] as number) | ((values[row * cols + col] as number) << (4 * (col & 7)));
    }
  return packed;
}

/** Reads nibble (row, col) of such words. */
function nibbleAt(packed: Int32Array, words: number, row: number, col: number, awq: boolean): number {
  const nibble = awq ? (AWQ_NIBBLE[col & 7] as number) : col & 7;
  return ((packed[row * words + (col >> 3)] as number) >>> (4 * nibble)) & 15;
}

/**
 * AutoAWQ gemm: `qweight` int32 [in, out / 8], `qzeros` int32 [in / g, out / 8], `scales` f16 [in / g, out].
 * @throws SparseVilaError `ERR_QUANTIZE_SHAPE` when out is no multiple of 8 or in none of the group
 */
function toAutoAwq(m: QuantizedMatrix): RawTensor[] {
  const groups = m.cols / m.group;
  if (m.rows % 8 !== 0 || !Number.isInteger(groups)) throw awqShape(m);
  const qweight = packTransposed(m.q, m.cols, m.rows);
  const qzeros = packTransposed(m.zero, groups, m.rows);
  const scales = halves(m.scale, (i) => (i % m.rows) * groups + Math.floor(i / m.rows));
  return [
    { name: 'qweight', dtype: 'I32', shape: [m.cols, m.rows / 8], bytes: bytesOf(qweight) },
    { name: 'qzeros', dtype: 'I32', shape: [groups, m.rows / 8], bytes: bytesOf(qzeros) },
    { name: 'scales', dtype: 'F16', shape: [groups, m.rows], bytes: bytesOf(scales) },
  ];
}

function awqShape({ rows, cols, group }: QuantizedMatrix): SparseVilaError {
  return new SparseVilaError(
    'ERR_QUANTIZE_SHAPE',
    `AutoAWQ's layout needs outputs that are a multiple of 8 and inputs that are a multiple of the group, received ` +
      `[${rows}, ${cols}] with groups of ${group}. Try another group size or --format compressed-tensors.`,
  );
}

function fromAutoAwq(parts: QuantizedParts): QuantizedMatrix {
  const [qweight, qzeros, scales] = [part(parts, 'qweight'), part(parts, 'qzeros'), part(parts, 'scales')];
  const [cols, words] = qweight.shape as [number, number];
  const [groups, rows] = scales.shape as [number, number];
  expectShape(qweight, [cols, rows / 8]);
  expectShape(qzeros, [groups, words]);
  const group = cols / groups;
  if (!Number.isInteger(group)) throw wrongPart(scales, `[inputs ${cols} / group, ${rows}]`);
  const [packed, zeros] = [wordsOf(qweight), wordsOf(qzeros)];
  const q = new Uint8Array(rows * cols);
  for (let n = 0; n < rows; n++) for (let k = 0; k < cols; k++) q[n * cols + k] = nibbleAt(packed, words, k, n, true);
  const zero = new Uint8Array(rows * groups);
  for (let n = 0; n < rows; n++)
    for (let g = 0; g < groups; g++) zero[n * groups + g] = nibbleAt(zeros, words, g, n, true);
  const bits = readScales(scales);
  const scale = Float32Array.from(
    { length: rows * groups },
    (_, i) => bits[(i % groups) * rows + Math.floor(i / groups)] as number,
  );
  return { rows, cols, group, q, scale, zero };
}

/**
 * compressed-tensors pack-quantized: `weight_packed` int32 [out, ceil(in / 8)], `weight_scale` f16 [out, in / g],
 * `weight_zero_point` int32 [ceil(out / 8), in / g] packed along the outputs (absent when symmetric), `weight_shape`.
 */
function toCompressedTensors(m: QuantizedMatrix, symmetric: boolean): RawTensor[] {
  const groups = Math.ceil(m.cols / m.group);
  const packed = packRows(m.q, m.rows, m.cols);
  const parts: RawTensor[] = [
    { name: 'weight_packed', dtype: 'I32', shape: [m.rows, Math.ceil(m.cols / 8)], bytes: bytesOf(packed) },
    { name: 'weight_scale', dtype: 'F16', shape: [m.rows, groups], bytes: bytesOf(halves(m.scale)) },
    {
      name: 'weight_shape',
      dtype: 'I64',
      shape: [2],
      bytes: bytesOf(BigInt64Array.of(BigInt(m.rows), BigInt(m.cols))),
    },
  ];
  if (symmetric) return parts;
  const words = Math.ceil(m.rows / 8);
  const zeros = new Int32Array(words * groups);
  for (let n = 0; n < m.rows; n++)
    for (let g = 0; g < groups; g++) {
      const word = (n >> 3) * groups + g;
      zeros[word] = (zeros[word] as number) | ((m.zero[n * groups + g] as number) << (4 * (n & 7)));
    }
  return [...parts, { name: 'weight_zero_point', dtype: 'I32', shape: [words, groups], bytes: bytesOf(zeros) }];
}

function fromCompressedTensors(parts: QuantizedParts, groupSize: number | undefined): QuantizedMatrix {
  const [weight, scales, size] = [
    part(parts, 'weight_packed'),
    part(parts, 'weight_scale'),
    part(parts, 'weight_shape'),
  ];
  const [rows = 0, cols = 0] = [...new BigInt64Array(size.bytes.slice().buffer)].map(Number);
  const words = Math.ceil(cols / 8);
  expectShape(weight, [rows, words]);
  const groups = scales.shape[1] ?? 0;
  // Where the last group is short, the shapes alone leave the group open.
  const group = groupSize ?? Math.ceil(cols / groups);
  expectShape(scales, [rows, Math.ceil(cols / group)]);
  const packed = wordsOf(weight);
  const q = new Uint8Array(rows * cols);
  for (let n = 0; n < rows; n++) for (let k = 0; k < cols; k++) q[n * cols + k] = nibbleAt(packed, words, n, k, false);
  const zero = new Uint8Array(rows * groups).fill(8);
  const zeros = parts.get('weight_zero_point');
  if (zeros !== undefined) {
    expectShape(zeros, [Math.ceil(rows / 8), groups]);
    const words32 = wordsOf(zeros);
    for (let n = 0; n < rows; n++)
      for (let g = 0; g < groups; g++)
        zero[n * groups + g] = ((words32[(n >> 3) * groups + g] as number) >>> (4 * (n & 7))) & 15;
  }
  return { rows, cols, group, q, scale: readScales(scales), zero };
}

/** The parts of a quantised matrix in a format, named by suffix. `symmetric` leaves zero points out where a format can. */
export function packQuantized(matrix: QuantizedMatrix, format: QuantizedFormat, symmetric = false): RawTensor[] {
  return format === 'autoawq' ? toAutoAwq(matrix) : toCompressedTensors(matrix, symmetric);
}

/** The inverse of `packQuantized`. `groupSize` is needed only where inputs are no multiple of the group. */
export function unpackQuantized(parts: QuantizedParts, format: QuantizedFormat, groupSize?: number): QuantizedMatrix {
  return format === 'autoawq' ? fromAutoAwq(parts) : fromCompressedTensors(parts, groupSize);
}

function readScales({ dtype, bytes, ...tensor }: RawTensor): Float32Array {
  if (dtype === 'F16' || dtype === 'BF16' || dtype === 'F32') return decodeFloats(bytes.slice(), dtype);
  throw wrongPart({ dtype, bytes, ...tensor }, 'F16, BF16 or F32');
}

function part(parts: QuantizedParts, suffix: string): RawTensor {
  const found = parts.get(suffix);
  if (found !== undefined) return found;
  throw new SparseVilaError(
    'ERR_WEIGHT_MISSING',
    `Expected a tensor "….${suffix}" beside ${[...parts.keys()].join(', ')}, found none. Is this the whole checkpoint?`,
  );
}

function expectShape(tensor: RawTensor, shape: readonly number[]): void {
  if (tensor.shape.length !== shape.length || tensor.shape.some((size, i) => size !== shape[i]))
    throw wrongPart(tensor, `[${shape.join(', ')}]`);
}

function wrongPart(tensor: RawTensor, expected: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_SHAPE',
    `Expected ${expected} for "${tensor.name}", received ${tensor.dtype} [${tensor.shape.join(', ')}].`,
  );
}
