// The ops that make 4-bit matrices: rounding in groups, rounding for a search, ranges, and rounding with feedback. Matrices are
// JavaScript arrays, read in place. Their definitions in plain TypeScript are testing/ops/references/quantize.ts.

import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { float32, floats, ints, run, runMany, withInt32 } from './run';
import type { PackedMatrix } from './weights';

/** Row-major f32 [rows, cols]: outputs by inputs, as in a checkpoint. */
export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly values: Float32Array;
}

/** w = (q - zero) scale, per group of `group` inputs of a row; q and zero are 0 .. 15. */
export interface QuantizedMatrix {
  readonly rows: number;
  readonly cols: number;
  readonly group: number;
  /** One nibble per byte, [rows, cols]. */
  readonly q: Uint8Array;
  /** [rows, ceil(cols / group)], each a binary16 number. */
  readonly scale: Float32Array;
  /** [rows, ceil(cols / group)]; 8 everywhere when symmetric. */
  readonly zero: Uint8Array;
}

export interface RoundOptions {
  readonly group: number;
  /** No zero points: a range of -8 .. 7 scales around 0. */
  readonly symmetric: boolean;
}

/** Factors that scale a matrix before rounding: w columns[input] / rows[output], each step rounded to f32. */
export interface Scaling {
  readonly columns?: Float32Array | undefined;
  readonly rows?: Float32Array | undefined;
}

type Bytes = Float32Array | Uint8Array;

/** Runs `body` with sources of arrays, in order. */
function withSources<T>(arrays: readonly Bytes[], body: (sources: number[]) => T): T {
  const { native } = start();
  const sources = arrays.map((array) => native.openMemory(array));
  try {
    return body(sources);
  } finally {
    for (const source of sources) native.release(source);
  }
}

/** Runs `body` with vectors as tensors, [0] for absent ones. */
function withVectors<T>(vectors: readonly (Float32Array | undefined)[], body: (tensors: Tensor[]) => T): T {
  const tensors = vectors.map((vector) => float32(vector ?? [], [vector?.length ?? 0]));
  try {
    return body(tensors);
  } finally {
    for (const tensor of tensors) tensor.dispose();
  }
}

function recipeOf(
  matrices: readonly Matrix[],
  sources: readonly number[],
  { group, symmetric }: RoundOptions,
): number[] {
  const parts = matrices.flatMap(({ rows }, i) => [sources[i] as number, rows]);
  return [group, Number(symmetric), matrices[0]?.cols ?? 0, ...parts];
}

/** The first `count` bytes of an int32 tensor, which is disposed of. */
function bytesOf(tensor: Tensor, count: number): Uint8Array {
  const words = ints(tensor);
  tensor.dispose();
  return new Uint8Array(words.buffer, words.byteOffset, count);
}

function taken(tensor: Tensor): Float32Array {
  const values = floats(tensor);
  tensor.dispose();
  return values;
}

/**
 * The nearest 4-bit matrix to `matrix`, scaled and then clamped.
 * @param limits f32 [rows, ceil(cols / group)], the largest magnitudes
 */
export function quantizeMatrix(
  matrix: Matrix,
  options: RoundOptions,
  scaling: Scaling = {},
  limits?: Float32Array,
): QuantizedMatrix {
  const { rows, cols } = matrix;
  const groups = rows * Math.ceil(cols / options.group);
  const [q, scale, zero] = withSources([matrix.values], (sources) =>
    withVectors([scaling.columns, scaling.rows, limits], (vectors) =>
      withInt32(recipeOf([matrix], sources, options), (recipe) => runMany('SvQuantize', [recipe, ...vectors], 3)),
    ),
  ) as [Tensor, Tensor, Tensor];
  return {
    ...{ rows, cols, group: options.group },
    ...{ q: bytesOf(q, rows * cols), scale: taken(scale), zero: bytesOf(zero, groups) },
  };
}

/**
 * Q(W diag(s)) diag(1 / s) of matrices stacked by rows, packed: it replaces W if the input is not scaled. The caller
 * disposes of the tensor.
 */
export function packRounded(matrices: readonly Matrix[], options: RoundOptions, s: Float32Array): PackedMatrix {
  const tensor = withSources(
    matrices.map(({ values }) => values),
    (sources) =>
      withVectors([s], (vectors) =>
        withInt32(recipeOf(matrices, sources, options), (recipe) => run('SvPackRounded', [recipe, ...vectors])),
      ),
  );
  return packedF32(tensor, matrices);
}

/**
 * Dequantizes matrices stacked by rows into a packed one: (q - zero) scale / columns[input] / rows[output]. The caller disposes of the
 * tensor.
 */
export function packQuantizedMatrices(matrices: readonly QuantizedMatrix[], scaling: Scaling): PackedMatrix {
  const [first] = matrices;
  const tensor = withSources(
    matrices.flatMap(({ q, scale, zero }) => [q, scale, zero]),
    (sources) =>
      withVectors([scaling.columns, scaling.rows], (vectors) => {
        const parts = matrices.flatMap(({ rows }, i) => [...sources.slice(3 * i, 3 * i + 3), rows]);
        return withInt32([first?.group ?? 0, first?.cols ?? 0, ...parts], (recipe) =>
          run('SvPackGrid', [recipe, ...vectors]),
        );
      }),
  );
  return packedF32(tensor, matrices);
}

function packedF32(
  tensor: Tensor,
  matrices: readonly { readonly rows: number; readonly cols: number }[],
): PackedMatrix {
  const outputs = matrices.reduce((sum, { rows }) => sum + rows, 0);
  return { tensor, outputs, inputs: matrices[0]?.cols ?? 0, type: 'f32', gated: false };
}

/**
 * The best clipping limits, f32 [rows, ceil(cols / group)]: of ten limits per group, from its largest magnitude down to 0.55 of it, the one
 * whose error d after clamping and rounding has the smallest d^T H d.
 * @param grams the H of each group, f32 [n, n], concatenated
 */
export function clipLimits(matrix: Matrix, options: RoundOptions, scaling: Scaling, grams: Float32Array): Float32Array {
  return withSources([matrix.values], (sources) =>
    withVectors([scaling.columns, scaling.rows, grams], (vectors) =>
      withInt32(recipeOf([matrix], sources, options), (recipe) => taken(run('SvClipLimits', [recipe, ...vectors]))),
    ),
  );
}

/**
 * Rounds `matrix`, scaled, to the grid of `grid`: with its scales and zero points, but other nibbles. The error of a weight is
 * compensated by the next weights of its row within a block of inputs. (GPTQ, arXiv 2210.17323, sections 3.2 and 3.3.)
 * @param block number of inputs of a block, a multiple of the group
 * @param grams the H of each block, f32 [n, n], concatenated
 */
export function feedbackRound(
  matrix: Matrix,
  grid: QuantizedMatrix,
  scaling: Scaling,
  block: number,
  grams: Float32Array,
): QuantizedMatrix {
  const { rows, cols } = matrix;
  const q = withSources([matrix.values, grid.scale, grid.zero], ([values = 0, scale = 0, zero = 0]) =>
    withVectors([scaling.columns, scaling.rows, grams], ([columns, divisors, products]) =>
      withInt32(recipeOf([matrix], [values], { group: grid.group, symmetric: false }), (recipe) =>
        withInt32([block, scale, zero], (places) =>
          run('SvFeedbackRound', [recipe, columns, divisors, places, products] as Tensor[]),
        ),
      ),
    ),
  );
  return { ...grid, q: bytesOf(q, rows * cols) };
}
