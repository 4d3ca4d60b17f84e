// Reads the tensors of one checkpoint folder directly into the tensors of ops. Each is requested by name and shape; a tensor that is never
// requested is an error at the end. Knows no architecture.

import { readTensor, type TensorEntry } from '../checkpoint/safetensors';
import { float32, floats, int32 } from '../ops/run';
import { recordValues, type VectorRecord } from '../ops/vectors';
import {
  type ByteRange,
  loadTensor,
  type PackedMatrix,
  type Precision,
  packArrays,
  type WeightType,
} from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { checkMatrix, checkVector } from './finite';
import { entriesOf, packStack, plainPart } from './stack';
import type { MatrixCache } from './weight_cache';
import { extraWeights, type IndexOptions, isOptionalBias, moduleOf, weightIndex } from './weight_index';

/** Number of bytes that are read from mapped files before they are unmapped. */
const MAPPED_BYTES = 2 ** 27;

export interface MatrixOptions {
  /** Whether the two matrices are gate and up of a gated MLP. */
  readonly gated?: boolean;
  /** Whether only single rows are looked up: rows that no token needs may hold any value. Default false: all values have to be finite. */
  readonly isTable?: boolean;
  /** Whether the file holds one float matrix as [k, rows]; it is kept in f32. Default false. */
  readonly transposed?: boolean;
}

/** A vector of a record: concatenated tensors of a shape or of shape [length], whose values are increased by `plus`; or one number. */
export type VectorSource =
  | readonly (readonly [name: string, shape: number | readonly number[], plus?: number])[]
  | number;

export interface Weights {
  has(name: string): boolean;
  /** An f32 tensor of exactly this shape, whose values are increased by `plus` in f32; default 0. */
  tensor(name: string, shape: readonly number[], plus?: number): Tensor;
  /** The data type of a float tensor in its file; undefined if there is none. */
  typeOf(name: string): WeightType | undefined;
  /** The concatenated vectors of one op. */
  record(vectors: readonly (VectorSource | undefined)[]): VectorRecord;
  /**
   * Matrices [rows, k] stacked along rows, packed for the matrix products. Higher ranks count as [first, the rest]. 4-bit forms
   * (`X.qweight` or `X.weight_packed` for `X.weight`) are packed as they are; so are 8-bit weights (int8 `X.weight` with `X.weight_scale`),
   * whose products round activations per row. Parts of different forms are dequantized.
   */
  matrix(names: readonly string[], rows: readonly number[], k: number, options?: MatrixOptions): PackedMatrix;
  /** A constant, f32 [1] or another small array. */
  constant(values: readonly number[]): Tensor;
  /** int32. */
  integers(values: readonly number[]): Tensor;
  /** Number of bytes read so far, and number to be read in all. */
  readonly progress: { readonly done: number; readonly total: number };
  /** Unmaps the files. Throws `ERR_WEIGHT_EXTRA` if a tensor was never requested. */
  close(): void;
  /** Unmaps the files and frees every tensor that was made. */
  dispose(): void;
}

export interface OpenOptions extends IndexOptions {
  /** Data type of matrices; default as in the file. 4-bit and 8-bit matrices keep their form. */
  readonly type?: WeightType | undefined;
  /** How products with 4-bit matrices round activations; default exact. */
  readonly precision?: Precision | undefined;
  /** Packed matrices on disk. */
  readonly cache?: MatrixCache | undefined;
}

/**
 * Opens a folder's safetensors files.
 * @throws SparseVilaError `ERR_CHECKPOINT_…` from the index; `ERR_WEIGHT_MISSING`, `ERR_WEIGHT_SHAPE`, `ERR_WEIGHT_DTYPE` if a requested
 *   tensor is not as expected; `ERR_WEIGHT_FORMAT`, `ERR_WEIGHT_VALUE` and `ERR_QUANTIZATION_UNSUPPORTED` for 4-bit and 8-bit weights of an
 *   unknown kind
 */
export function openWeights(folder: string, options: OpenOptions = {}): Weights {
  const { native } = start();
  const index = weightIndex(folder, options);
  const sources = new Map<string, number>();
  const made: Tensor[] = [];
  let unmappedAt = 0;

  const keep = <T extends Tensor>(tensor: T): T => {
    made.push(tensor);
    return tensor;
  };
  /** The location of a tensor's bytes, which then counts as read. */
  const rangeOf = (entry: TensorEntry): ByteRange => {
    index.take(entry);
    let source = sources.get(entry.file);
    if (source === undefined) {
      source = native.openFile(entry.file);
      sources.set(entry.file, source);
    }
    return { source, offset: entry.offset };
  };
  const packing = { type: options.type, precision: options.precision ?? 'exact', rangeOf } as const;
  const unmap = (): void => {
    for (const source of sources.values()) native.release(source);
    sources.clear();
    unmappedAt = index.progress.done;
  };
  /** Pages of mapped files count as resident memory until they are unmapped. */
  const unmapRead = (): void => {
    if (index.progress.done - unmappedAt >= MAPPED_BYTES) unmap();
  };
  const load = (name: string, shape: readonly number[], plus = 0): Tensor => {
    const plain = index.plain(name, shape);
    const loaded = keep(loadTensor(plainPart(plain, 0, rangeOf), shape));
    checkVector(floats(loaded), plain.entry);
    if (plus === 0) return loaded;
    const increased = keep(
      float32(
        floats(loaded).map((value) => value + plus),
        shape,
      ),
    );
    free(loaded);
    return increased;
  };
  const free = (tensor: Tensor): void => made.splice(made.indexOf(tensor), 1)[0]?.dispose();

  const transposedMatrix = (name: string, rows: number, k: number): PackedMatrix => {
    const stored = load(name, [k, rows]);
    const values = floats(stored);
    const packed = packArrays(
      [Float32Array.from({ length: rows * k }, (_, i) => values[(i % k) * rows + Math.floor(i / k)] as number)],
      k,
    );
    free(stored);
    keep(packed.tensor);
    return packed;
  };
  const valuesOf = (source: VectorSource): readonly number[] => {
    if (typeof source === 'number') return [source];
    return source.flatMap(([name, shape, plus]) => {
      const tensor = load(name, typeof shape === 'number' ? [shape] : shape, plus);
      const values = Array.from(floats(tensor));
      free(tensor);
      return values;
    });
  };

  return {
    has: index.has,
    tensor: load,
    typeOf: index.typeOf,
    record: (vectors) => {
      const { values, present } = recordValues(
        vectors.map((source) => (source === undefined ? source : valuesOf(source))),
      );
      return { tensor: keep(float32(values, [values.length])), present };
    },
    matrix: (names, rows, k, { gated = false, isTable = false, transposed = false } = {}) => {
      if (transposed) return transposedMatrix(names[0] as string, rows[0] as number, k);
      const stack = { modules: names.map(moduleOf), rows, k, gated };
      const form = index.stack(stack);
      const pack = (place?: ByteRange): PackedMatrix => {
        const packed = packStack(form, stack, { ...packing, place });
        keep(packed.tensor);
        if (!isTable) checkMatrix(packed, names, rows, index.find);
        return packed;
      };
      const request = { stack, form, isTable, type: options.type, entries: entriesOf(form), rangeOf };
      const packed = options.cache?.find(request, keep) ?? options.cache?.add(request, pack) ?? pack();
      unmapRead();
      return packed;
    },
    constant: (values) => keep(float32(values, [values.length])),
    integers: (values) => keep(int32(values)),
    get progress() {
      return index.progress;
    },
    close: () => {
      unmap();
      const left = index.rest().filter(([entry, name]) => !isIdle(entry, name));
      if (left.length > 0)
        throw extraWeights(
          folder,
          left.map(([, name]) => name),
          options.family,
        );
    },
    dispose: () => {
      unmap();
      for (const one of made.splice(0)) one.dispose();
    },
  };
}

/** Whether a tensor has no effect: one without elements, or a bias of zeros. */
function isIdle(entry: TensorEntry, name: string): boolean {
  return entry.bytes === 0 || (isOptionalBias(entry, name) && readTensor(entry).every((value) => value === 0));
}
