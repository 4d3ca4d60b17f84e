// Refuses weights that are NaN or infinite when they are loaded, and names them: later they would only show as invalid scores. Multiplying a
// matrix by a row of ones reads it once and exposes every such value. Knows no architecture.

import { readTensor, type TensorEntry } from '../checkpoint/safetensors';
import { SparseVilaError } from '../errors';
import { linear } from '../ops/linear';
import { float32, floats } from '../ops/run';
import type { PackedMatrix } from '../ops/weights';

const BYTES: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2 };

/** @throws SparseVilaError `ERR_WEIGHT_VALUE` naming the tensor and the element */
export function checkVector(values: Float32Array, entry: TensorEntry): void {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) throw broken(entry, at, values[at]);
}

/**
 * @param names the tensors that were packed, stacked along `rows`, or gate and up
 * @throws SparseVilaError `ERR_WEIGHT_VALUE` naming the tensor and the element, or the value that the storage type cannot hold
 */
export function checkMatrix(
  matrix: PackedMatrix,
  names: readonly string[],
  rows: readonly number[],
  find: (name: string) => TensorEntry | undefined,
): void {
  // 4-bit and 8-bit values are finite if their scales are, and scales are checked when they are packed.
  if (matrix.type === 'int4' || matrix.type === 'int8') return;
  const [ones, none] = [float32(new Float32Array(matrix.inputs).fill(1), [1, matrix.inputs]), float32([], [0])];
  const sums = linear(ones, matrix, none);
  const at = floats(sums).findIndex((value) => !Number.isFinite(value));
  for (const tensor of [ones, none, sums]) tensor.dispose();
  if (at < 0) return;
  let row = at;
  for (const [i, name] of names.entries()) {
    const count = rows[i] as number;
    const isIn = row >= 0 && row < count;
    if (isIn) checkRow(find(name), row, matrix.inputs);
    if (!matrix.gated) row -= count;
  }
  throw new SparseVilaError(
    'ERR_WEIGHT_VALUE',
    `${find(names[0] as string)?.file ?? ''}: row ${at} of ${names.join(', ')} is not finite as ${matrix.type}, though its values are: they are ` +
      `too large for ${matrix.type} or for their sum. Load with another value of the option "weights".`,
  );
}

/** One row of a plain matrix, with the file's values. */
function checkRow(entry: TensorEntry | undefined, row: number, k: number): void {
  const size = entry === undefined ? undefined : BYTES[entry.dtype];
  if (entry === undefined || size === undefined) return;
  const values = readTensor({ ...entry, shape: [k], offset: entry.offset + row * k * size, bytes: k * size });
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) throw broken(entry, row * k + at, values[at]);
}

function broken(entry: TensorEntry, at: number, value: number | undefined): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_VALUE',
    `${entry.file}: "${entry.name}" [${entry.shape}]: expected finite numbers, received ${value} at element ${at}. The weights are broken: ` +
      'download the file again, or use another export of the model.',
  );
}
