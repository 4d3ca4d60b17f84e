// Cases of the ops that make 4-bit matrices. The ops equal their definitions bit for bit, because searches compare losses that differ in the
// last digits.

import { dequantizeMatrix } from '../../../src/checkpoint/round';
import {
  clipLimits,
  feedbackRound,
  type Matrix,
  packQuantizedMatrices,
  packRounded,
  type QuantizedMatrix,
  quantizeMatrix,
  type Scaling,
} from '../../../src/ops/quantize';
import { float32, int32 } from '../../../src/ops/run';
import { dequantize, type PackedMatrix } from '../../../src/ops/weights';
import type { Tensor } from '../../../src/runtime/tensor';
import {
  clamped,
  clipLimitsReference,
  divideRows,
  feedbackReference,
  quantizeReference,
  roundMatrix,
  scaleColumns,
  scaled,
} from '../references/quantize';
import { type Comparison, coldCopies, compare, inTurn, type OpCase, type PreparedCase, take } from './case';
import { noise, sample } from './data';

interface QuantizeSizes {
  readonly rows: number;
  readonly cols: number;
  /** Inputs per group; the last group of a row may be smaller. */
  readonly group: number;
  readonly symmetric?: boolean;
  readonly big?: boolean;
}

/** A matrix, its scales, and the rows that are compared. */
interface QuantizeData {
  /** Equal matrices in different memory, for calls in turn. */
  readonly next: () => Matrix;
  readonly matrix: Matrix;
  readonly scaling: Scaling & { readonly columns: Float32Array; readonly rows: Float32Array };
  readonly options: { readonly group: number; readonly symmetric: boolean };
  readonly groups: number;
  readonly seen: readonly number[];
}

function quantizeData({ rows, cols, group, symmetric = false, big = false }: QuantizeSizes): QuantizeData {
  const values = noise(`quantize ${rows} ${cols}`, rows * cols, 0.05);
  const matrix = { rows, cols, values };
  const copies = big ? Array.from({ length: coldCopies(4 * rows * cols) }, () => values.slice()) : [values];
  return {
    next: inTurn(copies.map((copy) => ({ ...matrix, values: copy }))),
    matrix,
    scaling: {
      columns: noise('quantize columns', cols).map((x) => 2 ** x),
      rows: noise('quantize rows', rows).map((x) => 2 ** x),
    },
    options: { group, symmetric },
    groups: Math.ceil(cols / group),
    seen: sample(rows, big ? 8 : rows),
  };
}

/** The given rows of an array with `width` elements a row. */
function rowsOf<T extends Float32Array | Uint8Array>(values: T, width: number, rows: readonly number[]): T {
  const out = values.slice(0, rows.length * width) as T;
  for (const [i, row] of rows.entries()) out.set(values.subarray(row * width, (row + 1) * width), i * width);
  return out;
}

function pickRows({ cols, values }: Matrix, rows: readonly number[]): Matrix {
  return { rows: rows.length, cols, values: rowsOf(values, cols, rows) };
}

function pickScaling({ columns, rows }: QuantizeData['scaling'], picked: readonly number[]): Scaling {
  return { columns, rows: rowsOf(rows, 1, picked) };
}

function pickQuantized(matrix: QuantizedMatrix, rows: readonly number[]): QuantizedMatrix {
  const groups = Math.ceil(matrix.cols / matrix.group);
  const [q, scale] = [rowsOf(matrix.q, matrix.cols, rows), rowsOf(matrix.scale, groups, rows)];
  return { ...matrix, rows: rows.length, q, scale, zero: rowsOf(matrix.zero, groups, rows) };
}

/** Bytes that were read from an int32 tensor, as one again: without a copy where they fill it, as those of big cases do. */
function bytesTensor(bytes: Uint8Array): Tensor {
  if (bytes.length % 4 === 0) return int32(new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4));
  const padded = new Uint8Array(4 * Math.ceil(bytes.length / 4));
  padded.set(bytes);
  return int32(new Int32Array(padded.buffer));
}

/** A packed matrix, to be disposed of; of a small case its values instead, since tfjs cannot read the bytes. */
function packedOutput(packed: PackedMatrix, big: boolean): Tensor {
  if (big) return packed.tensor;
  const values = dequantize(packed);
  packed.tensor.dispose();
  return values;
}

const tensorsOf = ({ q, scale, zero }: QuantizedMatrix): Tensor[] => [
  bytesTensor(q),
  float32(scale, [scale.length]),
  bytesTensor(zero),
];

const compareQuantized = (actual: QuantizedMatrix, expected: QuantizedMatrix): Comparison[] => [
  compare('q', actual.q, expected.q),
  compare('scale', actual.scale, expected.scale),
  compare('zero', actual.zero, expected.zero),
];

/** A packed matrix's values, row-major; it is disposed of. */
function valuesOf(packed: PackedMatrix): Float32Array {
  const [values = new Float32Array()] = take([dequantize(packed)]);
  packed.tensor.dispose();
  return values;
}

type Prepare = (data: QuantizeData, sizes: QuantizeSizes) => Omit<PreparedCase, 'dispose'>;

function quantizeCase(op: string, sizes: QuantizeSizes, prepare: Prepare): OpCase {
  const { rows, cols, group, symmetric = false, big = false } = sizes;
  const name = `${rows}x${cols}, groups of ${group}${symmetric ? ', symmetric' : ''}`;
  return {
    ...{ op, name, dtype: 'f32', tolerance: 'exact', big },
    prepare: () => ({ ...prepare(quantizeData(sizes), sizes), dispose: () => undefined }),
  };
}

/** Scaled, clamped and rounded: all that `quantizeMatrix` does. */
const prepareQuantize: Prepare = ({ next, matrix, scaling, options, groups, seen }, { rows, cols }) => {
  const limits = noise('quantize limits', rows * groups).map((x) => 0.05 + Math.abs(x) / 8);
  const call = (): QuantizedMatrix => quantizeMatrix(next(), options, scaling, limits);
  return {
    run: () => tensorsOf(call()),
    check() {
      const applied = scaled(pickRows(matrix, seen), pickScaling(scaling, seen));
      const expected = quantizeReference(clamped(applied, rowsOf(limits, groups, seen), options.group), options);
      return compareQuantized(pickQuantized(call(), seen), expected);
    },
    bytes: 5 * rows * cols + 9 * rows * groups,
    flops: 0,
  };
};

/** The upper and the lower half of a matrix. Of one row there is no lower half. */
function halves({ rows, cols, values }: Matrix): Matrix[] {
  const first = Math.ceil(rows / 2);
  const parts = [
    { rows: first, cols, values: values.subarray(0, first * cols) },
    { rows: rows - first, cols, values: values.subarray(first * cols) },
  ];
  return parts.filter((part) => part.rows > 0);
}

const preparePackRounded: Prepare = ({ next, matrix, scaling, options, seen }, { rows, cols, big = false }) => {
  const call = (): PackedMatrix => packRounded(halves(next()), options, scaling.columns);
  return {
    run: () => [packedOutput(call(), big)],
    check() {
      const expected = roundMatrix(pickRows(matrix, seen), options, scaling.columns);
      return [compare('values', rowsOf(valuesOf(call()), cols, seen), expected.values)];
    },
    bytes: 8 * rows * cols,
    flops: 0,
  };
};

const preparePackQuantized: Prepare = ({ matrix, scaling, options, groups, seen }, { rows, cols, big = false }) => {
  const parts = halves(matrix).map((part) => quantizeReference(part, options));
  const copies = Array.from({ length: big ? coldCopies(rows * cols) : 1 }, () =>
    parts.map((part) => ({ ...part, q: part.q.slice() })),
  );
  const next = inTurn(copies);
  const call = (): PackedMatrix => packQuantizedMatrices(next(), scaling);
  return {
    run: () => [packedOutput(call(), big)],
    check() {
      const plain = dequantizeMatrix(quantizeReference(pickRows(matrix, seen), options));
      const expected = divideRows(scaleColumns(plain, scaling.columns, true), rowsOf(scaling.rows, 1, seen));
      return [compare('values', rowsOf(valuesOf(call()), cols, seen), expected.values)];
    },
    bytes: 5 * rows * cols + 5 * rows * groups,
    flops: 0,
  };
};

/** X^T X of inputs that move together, [n, n]. */
function gram(n: number): Float32Array {
  const rows = n + 9;
  const [own, shared] = [noise(`gram ${n}`, rows * n), noise('gram shared', rows)];
  const x = own.map((value, i) => 0.4 * value + (shared[Math.floor(i / n)] as number));
  const square = new Float64Array(n * n);
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++)
        square[i * n + j] =
          (square[i * n + j] as number) + ((x[row * n + i] as number) * (x[row * n + j] as number)) / rows;
  return Float32Array.from(square);
}

/** One after the other, for blocks of `size` columns and the rest. */
function grams(cols: number, size: number): Float32Array {
  const [whole, rest] = [gram(Math.min(size, cols)), cols > size ? cols % size : 0];
  const blocks = Array.from({ length: Math.max(1, Math.floor(cols / size)) }, () => whole);
  const all = rest > 0 ? [...blocks, gram(rest)] : blocks;
  const joined = new Float32Array(all.reduce((sum, block) => sum + block.length, 0));
  let at = 0;
  for (const block of all) {
    joined.set(block, at);
    at += block.length;
  }
  return joined;
}

const CLIP_STEPS = 10;

const prepareClip: Prepare = ({ next, matrix, scaling, options, groups, seen }, { rows, cols }) => {
  const products = grams(cols, options.group);
  const call = (): Float32Array => clipLimits(next(), options, scaling, products);
  return {
    run: () => [float32(call(), [rows, groups])],
    check() {
      const applied = scaled(pickRows(matrix, seen), pickScaling(scaling, seen));
      return [compare('limits', rowsOf(call(), groups, seen), clipLimitsReference(applied, products, options))];
    },
    bytes: 4 * (rows * cols + products.length + rows * groups),
    flops: CLIP_STEPS * 2 * rows * cols * Math.min(options.group, cols),
  };
};

/** Groups in a block of inputs, as a search with Gram matrices of 512 has them at groups of 128. */
const GROUPS_PER_BLOCK = 4;

const prepareFeedback: Prepare = ({ next, matrix, scaling, options, groups, seen }, { rows, cols }) => {
  const block = Math.min(cols, GROUPS_PER_BLOCK * options.group);
  const products = grams(cols, block);
  const grid = quantizeMatrix(matrix, options, scaling);
  const call = (): QuantizedMatrix => feedbackRound(next(), grid, scaling, block, products);
  return {
    run: () => [bytesTensor(call().q)],
    check() {
      const applied = scaled(pickRows(matrix, seen), pickScaling(scaling, seen));
      const expected = feedbackReference(applied, pickQuantized(grid, seen), block, products);
      return [compare('q', rowsOf(call().q, cols, seen), expected.q)];
    },
    bytes: 5 * (rows * cols + rows * groups) + 4 * products.length,
    flops: rows * cols * block,
  };
};

const OPS: Readonly<Record<string, Prepare>> = {
  quantizeMatrix: prepareQuantize,
  packRounded: preparePackRounded,
  packQuantizedMatrices: preparePackQuantized,
  clipLimits: prepareClip,
  feedbackRound: prepareFeedback,
};

// A group that does not divide the columns, one that is larger than they are, one row, and both roundings.
export const QUANTIZE_CASES: readonly OpCase[] = Object.entries(OPS).flatMap(([op, prepare]) => [
  quantizeCase(op, { rows: 1, cols: 131, group: 32 }, prepare),
  quantizeCase(op, { rows: 37, cols: 200, group: 24, symmetric: true }, prepare),
  quantizeCase(op, { rows: 17, cols: 72, group: 128 }, prepare),
  quantizeCase(op, { rows: 20, cols: 1027, group: 128 }, prepare),
  quantizeCase(op, { rows: 896, cols: 4864, group: 128, big: true }, prepare),
]);
