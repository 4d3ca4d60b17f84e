// The tasks of a conversion: the new form of each tensor or 4-bit matrix of a part, and its check afterwards. Matrices are made when
// they are written, so that only one is in memory. Does not know the layout of folders.

import { asSource } from '../checkpoint/export';
import { packQuantized, type QuantizedFormat, type RawTensor, unpackQuantized } from '../checkpoint/formats';
import { type Fp8Module, fp8Module, isFp8 } from '../checkpoint/fp8';
import { encodeFloats, type FloatDtype } from '../checkpoint/half';
import { type QuantizedModule, quantizedModule } from '../checkpoint/quantized';
import type { QuantizationConfig } from '../checkpoint/quantized_config';
import type { QuantizedMatrix } from '../checkpoint/round';
import { readBytes, readFloats, type TensorEntries, type TensorEntry } from '../checkpoint/safetensors';
import { copyOf, type TensorSource } from '../checkpoint/safetensors_writer';
import { isReordered, type WidenedMatrix, widenedFp8, widenedInt4 } from '../checkpoint/widen';
import { SparseVilaError } from '../errors';
import type { Int4Format } from '../ops/weights';

/** The layouts that can be written, by the names of the option. */
export const WRITTEN: Readonly<Partial<Record<Int4Format, QuantizedFormat>>> = {
  'awq-gemm': 'autoawq',
  'pack-quantized': 'compressed-tensors',
};
const ELEMENT_BYTES: Readonly<Record<FloatDtype, number>> = { F32: 4, F16: 2, BF16: 2 };
const isFloat = (dtype: string): dtype is FloatDtype => Object.hasOwn(ELEMENT_BYTES, dtype);

/** One tensor or matrix: the data to write, and the check of the written data. */
export interface Task {
  readonly sources: readonly TensorSource[];
  readonly converted: boolean;
  check(written: TensorEntries): boolean;
}

/** The target of a part's tensors: formats and names. */
export interface Target {
  /** The format of 4-bit matrices. */
  readonly format: 'float' | QuantizedFormat;
  /** The data type of float tensors; undefined: unchanged, f16 for dequantized ones, and bf16 for those of 8-bit floats. */
  readonly dtype: FloatDtype | undefined;
  readonly symmetric: boolean;
  /** The prefix of the names. */
  readonly prefix: string;
}

/** The 4-bit matrices among tensors. @throws SparseVilaError `ERR_WEIGHT_…` for unsupported layouts */
export function quantizedModules(entries: TensorEntries, config: QuantizationConfig | undefined): QuantizedModule[] {
  const find = (name: string): TensorEntry | undefined => entries.get(name);
  return [...entries.keys()].flatMap((name) => {
    const [, module] = /^(.*)\.(?:qweight|weight_packed)$/.exec(name) ?? [];
    if (module === undefined) return [];
    return [quantizedModule(find, module, ...sizeOf(find, module), config)];
  });
}

/** The matrices of 8-bit floats among tensors. @throws SparseVilaError `ERR_WEIGHT_…` */
export function float8Modules(entries: TensorEntries, config: QuantizationConfig | undefined): Fp8Module[] {
  const find = (name: string): TensorEntry | undefined => entries.get(name);
  return [...entries.keys()].flatMap((name) => {
    const module = name.replace(/\.weight$/, '');
    if (module === name || !isFp8(find, module)) return [];
    const [rows = 0, k = 0] = entries.get(name)?.shape ?? [];
    return [fp8Module(find, module, rows, k, config)];
  });
}

/** Outputs and inputs of a 4-bit matrix, from the shapes of its tensors. */
function sizeOf(find: (name: string) => TensorEntry | undefined, module: string): readonly [rows: number, k: number] {
  const [size, weight, scales] = ['weight_shape', 'qweight', 'scales'].map((name) => find(`${module}.${name}`));
  if (size !== undefined) return [words(size)[0] ?? 0, words(size)[2] ?? 0]; // int64
  const [a = 0, b = 0] = weight?.shape ?? [];
  const [c = 0, d = 0] = scales?.shape ?? [];
  if (weight?.dtype === 'I16') return [4 * a, b];
  if (8 * b === d) return [d, a];
  // GPTQ with equally many rows of words and scales would have groups of 8.
  return a === c ? [a, 8 * b] : [b, 8 * a];
}

const words = (entry: TensorEntry): Int32Array => new Int32Array(readBytes(entry).buffer);

/** The numbers of a 4-bit matrix. */
export const readMatrix = (module: QuantizedModule): QuantizedMatrix => unpackQuantized(module, readBytes);

/** The tasks that write a part. `float8` are converted if the format is float. */
export function tasksOf(
  entries: TensorEntries,
  { modules, float8 }: { readonly modules: readonly QuantizedModule[]; readonly float8: readonly Fp8Module[] },
  target: Target,
): Task[] {
  const { format } = target;
  const made = new Map<TensorEntry, () => Task[]>();
  const add = (own: readonly (TensorEntry | undefined)[], task: () => Task): void => {
    const [first, ...others] = own.filter((entry) => entry !== undefined);
    if (first !== undefined) made.set(first, () => [task()]);
    for (const entry of others) made.set(entry, () => []);
  };
  for (const module of modules) {
    const widened = (): Task => floatTask(module, widenedInt4(module), 'F16', target);
    add(Object.values(module.tensors), format === 'float' ? widened : () => packTask(module, format, target));
  }
  for (const module of format === 'float' ? float8 : []) {
    const widened = widenedFp8(module);
    add(widened.entries, () => floatTask(module, widened, 'BF16', target));
  }
  return [...entries.values()].flatMap((entry) => made.get(entry)?.() ?? [castTask(entry, target)]);
}

function castTask(entry: TensorEntry, { dtype, prefix }: Target): Task {
  const name = prefix + entry.name;
  if (dtype === undefined || entry.dtype === dtype || !isFloat(entry.dtype)) {
    const check = (written: TensorEntries): boolean => sameBytes(readBytes(entry), bytesIn(written, name));
    return { sources: [copyOf(entry, name)], converted: false, check };
  }
  const byteLength = (entry.bytes / ELEMENT_BYTES[entry.dtype]) * ELEMENT_BYTES[dtype];
  const bytes = (): Uint8Array => encodeFloats(readFloats(entry), dtype);
  return {
    sources: [{ name, dtype, shape: entry.shape, byteLength, bytes }],
    converted: true,
    check: (written) => {
      readFloats(written.get(name) as TensorEntry); // throws for what overflowed
      return sameBytes(bytes(), bytesIn(written, name));
    },
  };
}

const TYPES = { F32: 'f32', F16: 'f16', BF16: 'bf16' } as const;

function floatTask(
  { name: module, rows, k }: Pick<QuantizedModule, 'name' | 'rows' | 'k'>,
  matrix: WidenedMatrix,
  otherwise: FloatDtype,
  { dtype = otherwise, prefix }: Target,
): Task {
  const name = `${prefix}${module}.weight`;
  const bytes = (): Uint8Array => matrix.read(TYPES[dtype]);
  const source = { name, dtype, shape: [rows, k], byteLength: rows * k * ELEMENT_BYTES[dtype], bytes };
  return { sources: [source], converted: true, check: (written) => sameBytes(bytes(), bytesIn(written, name)) };
}

function packTask(module: QuantizedModule, format: QuantizedFormat, { symmetric, prefix }: Target): Task {
  const { rows, k, group } = module;
  const name = prefix + module.name;
  const { groupIndex } = module.tensors;
  if (groupIndex !== undefined && isReordered(module)) throw reordered(groupIndex);
  const pack = (): RawTensor[] => {
    const matrix = readMatrix(module);
    if (matrix.zero.includes(16)) throw zeroOf16(module);
    return packQuantized(matrix, format, symmetric);
  };
  const sources = pack().map((part, i) => ({
    ...asSource(part, `${name}.`),
    bytes: () => (pack()[i] as RawTensor).bytes,
  }));
  const check = (entries: TensorEntries): boolean => {
    const after = readMatrix({ ...quantizedModule((one) => entries.get(one), name, rows, k), group });
    const before = readMatrix(module);
    return (['q', 'zero', 'scale'] as const).every((key) => sameNumbers(before[key], after[key]));
  };
  return { sources, converted: format !== WRITTEN[module.format], check };
}

const bytesIn = (written: TensorEntries, name: string): Uint8Array => readBytes(written.get(name) as TensorEntry);
const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
const sameNumbers = (a: ArrayLike<number>, b: ArrayLike<number>): boolean =>
  a.length === b.length && Array.prototype.every.call(a, (value, i) => value === b[i]);

function reordered({ file, name }: TensorEntry): SparseVilaError {
  const why = 'inputs are reordered (desc_act, actorder), which no other layout can hold. Use --format float';
  return new SparseVilaError('ERR_WEIGHT_FORMAT', `${file}: "${name}": ${why}.`);
}

function zeroOf16({ name, format }: QuantizedModule): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_VALUE',
    `"${name}" has zero points of 16, which ${format} alone can hold: other layouts have 0 to 15. Use --format float.`,
  );
}
