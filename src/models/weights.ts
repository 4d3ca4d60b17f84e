// The tensors of one checkpoint folder, read straight into ops' tensors: each is asked for by name and shape, and what nobody
// asked for is an error in the end. Knows no architecture.

import { isQuantized } from '../checkpoint/quantized';
import { type QuantizationConfig, readQuantization } from '../checkpoint/quantized_config';
import { openCheckpoint, readTensor, type TensorEntry } from '../checkpoint/safetensors';
import { SparseVilaError } from '../errors';
import { float32, floats } from '../ops/run';
import {
  type ByteRange,
  loadTensor,
  type PackedMatrix,
  type Precision,
  type WeightPart,
  type WeightType,
} from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { checkMatrix, checkVector } from './finite';
import { stackPacker } from './stack';

const WEIGHT_TYPES: Readonly<Record<string, WeightType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

export interface MatrixOptions {
  /** Gate and up of a gated MLP. */
  readonly gated?: boolean;
  /** Only single rows are looked up: rows that no token needs may hold anything. Default false: all values have to be finite. */
  readonly isTable?: boolean;
}

export interface Weights {
  has(name: string): boolean;
  /** An f32 tensor of exactly this shape. */
  tensor(name: string, shape: readonly number[]): Tensor;
  /** The tensor if the checkpoint has it, else [0]: how an absent bias travels. */
  optional(name: string, shape: readonly number[]): Tensor;
  /** Several vectors end to end, as f32. */
  vectors(names: readonly string[], lengths: readonly number[]): Tensor;
  /**
   * Matrices [rows, k] stacked along rows, packed for the matrix products. Higher ranks count as [first, the rest]. Where the
   * checkpoint has a 4-bit form (`X.qweight` or `X.weight_packed` for `X.weight`) that is packed; and so are 8-bit weights (int8
   * `X.weight` with `X.weight_scale`), whose products round activations per row. Parts of different forms are dequantized.
   */
  matrix(names: readonly string[], rows: readonly number[], k: number, options?: MatrixOptions): PackedMatrix;
  /** f32 [1], or any small constant. */
  constant(values: readonly number[]): Tensor;
  /** Bytes read so far, and in all that is to be read. */
  readonly progress: { readonly done: number; readonly total: number };
  /** Unmaps the files. Throws `ERR_WEIGHT_EXTRA` when tensors are left that no one asked for. */
  close(): void;
  /** Unmaps the files and frees every tensor made. */
  dispose(): void;
}

export interface OpenOptions {
  /** Storage of matrices; default as in the file. 4-bit and 8-bit matrices stay what they are. */
  readonly type?: WeightType | undefined;
  /** How products with 4-bit matrices round activations; default exact. */
  readonly precision?: Precision | undefined;
  /** What a config outside the folder says; that of the folder comes first. */
  readonly quantization?: QuantizationConfig | undefined;
  /** Names that may be there and are not read. */
  readonly ignore?: readonly RegExp[];
  /** The canonical name of a name in the file: prefix rules. */
  readonly rename?: (name: string) => string;
}

/**
 * Opens a folder's safetensors.
 * @throws SparseVilaError `ERR_CHECKPOINT_…` from the index; `ERR_WEIGHT_MISSING`, `ERR_WEIGHT_SHAPE`, `ERR_WEIGHT_DTYPE`
 *   when a tensor that is asked for is not as expected; `ERR_WEIGHT_FORMAT`, `ERR_WEIGHT_VALUE` and
 *   `ERR_QUANTIZATION_UNSUPPORTED` for 4-bit and 8-bit weights that we do not read.
 */
export function openWeights(folder: string, options: OpenOptions = {}): Weights {
  const { rename = (name) => name, ignore = [] } = options;
  const { native } = start();
  const entries = new Map<string, TensorEntry>();
  for (const entry of openCheckpoint(folder).values()) {
    const name = rename(entry.name);
    const other = entries.get(name);
    if (other !== undefined) throw twice(entry, other);
    entries.set(name, entry);
  }
  const sources = new Map<string, number>();
  const unread = new Map([...entries].map(([name, entry]) => [entry, name]));
  for (const [entry, name] of unread) if (ignore.some((pattern) => pattern.test(name))) unread.delete(entry);
  const total = [...unread.keys()].reduce((sum, entry) => sum + entry.bytes, 0);
  const made: Tensor[] = [];
  let done = 0;

  const keep = <T extends Tensor>(tensor: T): T => {
    made.push(tensor);
    return tensor;
  };
  /** Where a tensor lies, which counts as read from then on. */
  const rangeOf = (entry: TensorEntry): ByteRange => {
    if (unread.delete(entry)) done += entry.bytes;
    let source = sources.get(entry.file);
    if (source === undefined) {
      source = native.openFile(entry.file);
      sources.set(entry.file, source);
    }
    return { source, offset: entry.offset };
  };
  const part = (name: string, shape: readonly number[]): WeightPart => {
    const entry = findEntry(entries, name, shape, folder);
    const type = WEIGHT_TYPES[entry.dtype];
    if (type === undefined) {
      throw new SparseVilaError(
        'ERR_WEIGHT_DTYPE',
        `${entry.file}: expected BF16, F16 or F32 for "${name}", received ${entry.dtype}.`,
      );
    }
    return { ...rangeOf(entry), type, rows: shape[0] as number };
  };
  const find = (name: string): TensorEntry | undefined => entries.get(name);
  const packStack = stackPacker({
    quantization: readQuantization(folder) ?? options.quantization,
    type: options.type,
    precision: options.precision ?? 'exact',
    find,
    rangeOf,
    part,
  });
  const unmap = (): void => {
    for (const source of sources.values()) native.release(source);
    sources.clear();
  };
  const load = (name: string, shape: readonly number[]): Tensor => {
    const loaded = loadTensor(part(name, shape), shape);
    made.push(loaded);
    checkVector(floats(loaded), findEntry(entries, name, shape, folder));
    return loaded;
  };

  return {
    has: (name) => entries.has(name) || (name.endsWith('.weight') && isQuantized(find, moduleOf(name))),
    tensor: load,
    optional: (name, shape) => (entries.has(name) ? load(name, shape) : keep(float32([], [0]))),
    vectors: (names, lengths) => {
      const parts = names.map((name, i) => load(name, [lengths[i] as number]));
      const joined = keep(start().tf.concat(parts));
      for (const piece of parts) made.splice(made.indexOf(piece), 1)[0]?.dispose();
      return joined;
    },
    matrix: (names, rows, k, { gated = false, isTable = false } = {}) => {
      const packed = packStack({ modules: names.map(moduleOf), rows, k, gated });
      keep(packed.tensor);
      if (!isTable) checkMatrix(packed, names, rows, find);
      return packed;
    },
    constant: (values) => keep(float32(values, [values.length])),
    get progress() {
      return { done, total };
    },
    close: () => {
      unmap();
      const left = [...unread].filter(([entry, name]) => !isIdle(entry, name)).map(([, name]) => name);
      if (left.length > 0) throw extra(folder, left);
    },
    dispose: () => {
      unmap();
      for (const one of made.splice(0)) one.dispose();
    },
  };
}

const moduleOf = (name: string): string => name.replace(/\.weight$/, '');

/** The entry of a name, its shape checked; a rank above two (a convolution) may be asked for as [first, the rest]. */
function findEntry(
  entries: ReadonlyMap<string, TensorEntry>,
  name: string,
  shape: readonly number[],
  folder: string,
): TensorEntry {
  const entry = entries.get(name);
  if (entry === undefined) {
    const near = [...entries.keys()].filter((other) =>
      other.endsWith(name.slice(name.lastIndexOf('.', name.lastIndexOf('.') - 1))),
    );
    throw new SparseVilaError(
      'ERR_WEIGHT_MISSING',
      `${folder}: expected a tensor "${name}" [${shape}], but the checkpoint has none` +
        `${near.length > 0 ? ` (it has ${near.slice(0, 3).join(', ')})` : ''}. Is this the whole checkpoint, of this model type?`,
    );
  }
  const [first = 0, ...rest] = entry.shape;
  const flat = rest.length > 1 && shape.length === 2 ? [first, rest.reduce((a, b) => a * b, 1)] : entry.shape;
  if (flat.length !== shape.length || flat.some((size, i) => size !== shape[i])) {
    throw new SparseVilaError(
      'ERR_WEIGHT_SHAPE',
      `${entry.file}: expected shape [${shape}] for "${name}", received [${entry.shape}]. Do the config files belong to these weights?`,
    );
  }
  return entry;
}

/**
 * Whether a tensor changes nothing: one without elements, or a bias of zeros, as AutoGPTQ writes beside every linear layer and
 * other tools where a model has none.
 */
function isIdle(entry: TensorEntry, name: string): boolean {
  if (entry.bytes === 0) return true;
  if (!name.endsWith('.bias') || entry.shape.length !== 1 || !(entry.dtype in WEIGHT_TYPES)) return false;
  return readTensor(entry).every((value) => value === 0);
}

function twice({ file, name }: TensorEntry, other: TensorEntry): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_EXTRA',
    `${file}: expected one tensor for each weight, received "${name}" and "${other.name}" in ${other.file} for the same. Which one counts ` +
      'cannot be told: remove the other.',
  );
}

function extra(folder: string, names: readonly string[]): SparseVilaError {
  const shown = names.slice(0, 5).join(', ');
  return new SparseVilaError(
    'ERR_WEIGHT_EXTRA',
    `${folder}: ${names.length} tensors that this model has no use for: ${shown}${names.length > 5 ? ', …' : ''}. ` +
      'Running without them would be a different model; is the model type right?' +
      (names.every((name) => name.endsWith('.bias')) ? ' (Biases may be there when they are all zero.)' : ''),
  );
}
