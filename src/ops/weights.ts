// Makes weight tensors directly from a source (a mapped checkpoint file, or a typed array): packed matrices for products, including 4-bit
// ones, and f32 tensors for norms and biases. Knows nothing about the names in checkpoints.

import { SparseVilaError } from '../errors';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { ints, noInt32, run, withInt32 } from './run';

/** The data type of a matrix. Products always accumulate in f32. */
export type WeightType = 'f32' | 'f16' | 'bf16';
const TYPE_CODE: Readonly<Record<WeightType, number>> = { f32: 0, f16: 1, bf16: 2 };
export const WEIGHT_BYTES: Readonly<Record<WeightType, number>> = { f32: 4, f16: 2, bf16: 2 };

/** A row-major [rows, k] matrix, or any tensor, inside a source. */
export interface WeightPart {
  /** From `openFile` or `openMemory`. */
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
  readonly type: WeightType | 'int4' | 'int8';
  /** Gate and up interleaved: a product yields silu(x G^T) * (x U^T). */
  readonly gated: boolean;
}

export interface PackOptions {
  /** Data type; default that of the first part. */
  readonly type?: WeightType;
  /** Two parts, gate and up, of equal rows. */
  readonly gated?: boolean;
  /** Round activations to bf16 where the processor multiplies bf16 faster than f32 (error about 1e-6 NMSE). */
  readonly roundActivations?: boolean;
  readonly place?: ByteRange | undefined;
}

/** Number of outputs of a strip; packed matrices are stored in strips, and 4-bit ones are stacked in whole strips. */
export const STRIP = 16;
const HEADER_BYTES = 64;

/**
 * Bytes that a packed matrix takes. `group`: of 4 bits, inputs per scale as stored.
 * Source: native/kernels/linear.cc, int4.cc, int8.cc (`packed_bytes`, `packed_int4_bytes`, `packed_int8_bytes`).
 */
export function packedBytes(
  type: PackedMatrix['type'],
  { rows, k, gated }: { readonly rows: readonly number[]; readonly k: number; readonly gated: boolean },
  group = STORED_GROUPS[0] as number,
): number {
  const strips = (count: number): number => Math.ceil(count / STRIP);
  const upTo = (size: number): number => Math.ceil(k / size) * size;
  const joined = strips(rows.reduce((sum, count) => sum + count, 0));
  const apart = rows.reduce((sum, count) => sum + strips(count), 0);
  if (type === 'int4') return HEADER_BYTES + apart * Math.ceil(k / group) * ((STRIP / 2) * group + 64);
  if (type === 'int8') return HEADER_BYTES + joined * (upTo(4) * STRIP + 128);
  return HEADER_BYTES + (gated ? apart : joined) * STRIP * upTo(2) * WEIGHT_BYTES[type];
}

const words = (offset: number): [number, number] => [offset | 0, Math.floor(offset / 2 ** 32)];

/** Runs an op that packs, into a place of a file from `createFile` that has the bytes reserved; absent: into memory of TensorFlow. */
function packBy(op: string, recipe: readonly number[], place: ByteRange | undefined): Tensor {
  return withInt32(recipe, (r) => {
    if (place === undefined) return run(op, [r, noInt32()]);
    return withInt32([place.source, ...words(place.offset)], (p) => run(op, [r, p]));
  });
}

/**
 * Packs parts, stacked along rows, of k inputs each.
 * Throws `ERR_WEIGHT` if a part is outside its source.
 */
export function packMatrix(parts: readonly WeightPart[], k: number, options: PackOptions = {}): PackedMatrix {
  const first = parts[0];
  if (first === undefined)
    throw new SparseVilaError('ERR_INTERNAL', 'packMatrix: expected at least one part, received none.');
  const { type = first.type, gated = false, roundActivations = false, place } = options;
  const recipe = [TYPE_CODE[type], Number(gated), Number(roundActivations), k];
  for (const part of parts) recipe.push(part.source, ...words(part.offset), TYPE_CODE[part.type], part.rows);
  const tensor = packBy('SvPack', recipe, place);
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
  const sources = matrices.map((matrix) => native.openMemory(matrix));
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

/** 4-bit file formats, in the order of native/kernels/int4_formats.h, which documents the place of each nibble. */
const INT4_FORMATS = ['awq-gemm', 'awq-gemv', 'awq-gemv-fast', 'pack-quantized', 'gptq', 'gptq-v2'] as const;
export type Int4Format = (typeof INT4_FORMATS)[number];
/** Inputs per scale that the kernels know, largest first. */
export const STORED_GROUPS = [128, 64, 32] as const;

/** Where the bytes of a tensor begin: the number of an opened file and an offset in it. Their length follows from the tensor's shape. */
export interface ByteRange {
  readonly source: number;
  readonly offset: number;
}

/** One matrix in a 4-bit format. */
export interface Int4Part {
  readonly rows: number;
  readonly weight: ByteRange;
  readonly scales: ByteRange;
  /** Absent: symmetric `pack-quantized`. */
  readonly zeros?: ByteRange | undefined;
  /** int32 [k]: must be i / group for every input i. */
  readonly groupIndex?: ByteRange | undefined;
  /** int64 [2]: must be [rows, k]. */
  readonly shape?: ByteRange | undefined;
}

/** The settings that the parts of a 4-bit matrix share. */
export interface Int4Layout {
  readonly format: Int4Format;
  readonly k: number;
  /** Inputs per scale in the file. */
  readonly group: number;
  /** Inputs per scale as stored: 32, 64 or 128. Divides `group`; any of them if one scale serves the whole row. */
  readonly storedGroup: number;
  readonly scaleType: WeightType;
}

/** exact: two 8-bit planes of activations (NMSE 1e-6 against f32 on the same weights); fast: one (1e-4). */
export type Precision = 'exact' | 'fast';

/**
 * Packs 4-bit matrices, stacked along rows (multiples of 16, except the last) or as gate and up; nothing is rounded.
 * Throws "part i: <tensor>: …" for scales that are NaN or infinite, f32 scales that neither f16 nor bf16 holds, activation
 * order, another weight_shape, and parts outside their sources.
 */
export function packInt4(
  parts: readonly Int4Part[],
  { format, k, group, storedGroup, scaleType }: Int4Layout,
  {
    gated = false,
    precision = 'exact',
    place,
  }: {
    readonly gated?: boolean;
    readonly precision?: Precision;
    readonly place?: ByteRange | undefined;
  } = {},
): PackedMatrix {
  const planes = precision === 'exact' ? 2 : 1;
  const recipe = [INT4_FORMATS.indexOf(format), Number(gated), planes, k, group, storedGroup, TYPE_CODE[scaleType]];
  for (const { rows, weight, scales, zeros, groupIndex, shape } of parts) {
    recipe.push(rows);
    for (const range of [weight, scales, zeros, groupIndex, shape])
      recipe.push(range?.source ?? -1, ...words(range?.offset ?? 0));
  }
  const tensor = packBy('SvPackInt4', recipe, place);
  const rows = parts.map((part) => part.rows);
  const outputs = gated ? (rows[0] ?? 0) : rows.reduce((a, b) => a + b, 0);
  return { tensor, outputs, inputs: k, type: 'int4', gated };
}

/**
 * Rows [row, row + rows) of a packed matrix of any type, f32 [rows, inputs]. 4-bit weights are (q - z) s, or q s + sz where
 * the file stores sz = -z s, evaluated in f32. A gated matrix has 16 rows of gate, 16 of up, and so on, the last 16 padded
 * with zeros.
 */
export function dequantize(matrix: PackedMatrix, row = 0, rows = matrix.outputs): Tensor {
  return withInt32([row, rows], (range) => run('SvDequantize', [matrix.tensor, range]));
}

/** A matrix to store in 8 bits: int8 with the scales of a file, or floats, which are rounded in steps of max|w| / 127 per row. */
export interface Int8Part extends ByteRange {
  readonly rows: number;
  readonly type: WeightType | 'int8';
  /** Of an int8 part: [rows]. */
  readonly scales?: (ByteRange & { readonly type: WeightType }) | undefined;
}

/**
 * Packs a matrix [rows, k], parts stacked, or two of equal rows as gate and up, with one scale per output; products round activations to 8 bits per row (W8A8,
 * SmoothQuant, arXiv 2211.10438): NMSE about 5e-5 against f32 on the same weights for Gaussian activations.
 * Throws for parts outside their sources and for scales that are not finite.
 */
export function packInt8(
  parts: readonly Int8Part[],
  k: number,
  { gated = false, place }: { readonly gated?: boolean; readonly place?: ByteRange | undefined } = {},
): PackedMatrix {
  const recipe = [k, Number(gated)];
  for (const { source, offset, rows, type, scales } of parts) {
    recipe.push(source, ...words(offset), type === 'int8' ? 4 : TYPE_CODE[type], rows);
    recipe.push(scales?.source ?? -1, ...words(scales?.offset ?? 0), TYPE_CODE[scales?.type ?? 'f32']);
  }
  const tensor = packBy('SvPackInt8', recipe, place);
  const outputs = gated ? (parts[0]?.rows ?? 0) : parts.reduce((sum, part) => sum + part.rows, 0);
  return { tensor, outputs, inputs: k, type: 'int8', gated };
}

/** A packed matrix that lies in a file, mapped; `sum` is its checksum. @throws SparseVilaError `ERR_OP` if the bytes there have another */
export function mapPacked(at: ByteRange, bytes: number, sum: string): Tensor {
  const sums = [0, 8].map((from) => Number.parseInt(sum.slice(from, from + 8), 16) | 0);
  return withInt32([at.source, ...words(at.offset), ...words(bytes), ...sums], (recipe) => run('SvPacked', [recipe]));
}

/** The checksum of a packed matrix: 16 hexadecimal digits. */
export function packedSum({ tensor }: Pick<PackedMatrix, 'tensor'>): string {
  return hexOf(run('SvPackedSum', [tensor]));
}

/** The checksums of ranges of sources, 16 hexadecimal digits each, one after another. */
export function checksums(ranges: readonly (ByteRange & { readonly bytes: number })[]): string {
  const recipe = ranges.flatMap(({ source, offset, bytes }) => [source, ...words(offset), ...words(bytes)]);
  return withInt32(recipe, (r) => hexOf(run('SvChecksum', [r])));
}

/** The digits of int32 words; disposes of the tensor. */
function hexOf(words: Tensor): string {
  const hex = Array.from(ints(words), (word) => (word >>> 0).toString(16).padStart(8, '0')).join('');
  words.dispose();
  return hex;
}
