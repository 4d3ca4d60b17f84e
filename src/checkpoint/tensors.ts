// The tensors of a checkpoint folder, read one at a time: raw bytes, or widened to f32 and checked to be finite. Knows names
// only as strings.

import { SparseVilaError } from '../errors';
import { openCheckpoint, readBytes, readTensor, type TensorEntry } from './safetensors';
import type { TensorSource } from './safetensors_writer';

export { readBytes } from './safetensors';

export interface Tensors {
  readonly folder: string;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** f32 values. @throws SparseVilaError `ERR_WEIGHT_…`, `ERR_NOT_FINITE` */
  floats(name: string, shape: readonly number[]): Float32Array;
  /** The tensor as it is, for writing elsewhere. */
  copy(name: string, as?: string): TensorSource;
}

const PIECE_BYTES = 64 * 2 ** 20;

/** Opens the safetensors of `folder`. Reads headers only. */
export const openTensors = (folder: string): Tensors => tensorsOf(folder, openCheckpoint(folder));

/** Those whose names begin with `prefix`, named without it. */
export function withPrefix({ folder, entries }: Tensors, prefix: string): Tensors {
  const chosen = [...entries.values()].filter(({ name }) => name.startsWith(prefix));
  const named = chosen.map((entry) => ({ ...entry, name: entry.name.slice(prefix.length) }));
  return tensorsOf(folder, new Map(named.map((entry) => [entry.name, entry])));
}

function tensorsOf(folder: string, entries: ReadonlyMap<string, TensorEntry>): Tensors {
  const find = (name: string): TensorEntry => {
    const entry = entries.get(name);
    if (entry !== undefined) return entry;
    throw new SparseVilaError(
      'ERR_WEIGHT_MISSING',
      `${folder}: expected a tensor "${name}", but the checkpoint has none. Is it quantised already, or of another family?`,
    );
  };
  const floats = (name: string, shape: readonly number[]): Float32Array => {
    const entry = find(name);
    if (entry.shape.length !== shape.length || entry.shape.some((size, i) => size !== shape[i])) {
      throw new SparseVilaError(
        'ERR_WEIGHT_SHAPE',
        `${entry.file}: expected shape [${shape}] for "${name}", received [${entry.shape}].`,
      );
    }
    return readFloats(entry);
  };
  return {
    folder,
    entries,
    floats,
    copy: (name, as = name) => copyOf(find(name), as),
  };
}

/** A plain loop: `findIndex` takes ten times as long. */
function firstNotFinite(values: Float32Array): number | undefined {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return i;
  return undefined;
}

/** A tensor widened to f32. @throws SparseVilaError `ERR_WEIGHT_DTYPE`, `ERR_NOT_FINITE` */
export function readFloats(entry: TensorEntry): Float32Array {
  const { name, file } = entry;
  const values = readTensor(entry);
  const bad = firstNotFinite(values);
  if (bad === undefined) return values;
  throw new SparseVilaError(
    'ERR_NOT_FINITE',
    `${file}: "${name}" holds ${values[bad]} at element ${bad}. A checkpoint with such weights cannot be quantized; download it again.`,
  );
}

/** A tensor as it is, for writing elsewhere. */
export function copyOf(entry: TensorEntry, name: string): TensorSource {
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < entry.bytes; at += PIECE_BYTES)
      yield readBytes(entry, at, Math.min(PIECE_BYTES, entry.bytes - at));
  }
  return { name, dtype: entry.dtype, shape: entry.shape, byteLength: entry.bytes, bytes: pieces };
}
