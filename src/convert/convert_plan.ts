// What a conversion writes for each tensor of one folder, and how it is checked afterwards. Matrices are made when their turn
// comes, so that only one is in memory. Knows no folders' layout.

import { asSource, type QuantizationFacts } from '../checkpoint/export';
import { packQuantized, type QuantizedFormat, type RawTensor, unpackQuantized } from '../checkpoint/formats';
import { encodeFloats, type FloatDtype } from '../checkpoint/half';
import { type QuantizedModule, quantizedModule } from '../checkpoint/quantized';
import type { QuantizationConfig } from '../checkpoint/quantized_config';
import { dequantizeMatrix, type QuantizedMatrix } from '../checkpoint/round';
import type { TensorEntry } from '../checkpoint/safetensors';
import type { TensorSource } from '../checkpoint/safetensors_writer';
import { readBytes, readFloats, type Tensors } from '../checkpoint/tensors';
import { SparseVilaError } from '../errors';
import { pacer } from '../models/pacer';
import type { Int4Format } from '../ops/weights';

/** What is written for one folder. */
export interface Plan {
  readonly sources: readonly TensorSource[];
  readonly bytes: number;
  readonly converted: number;
  /** Of the config: the type of what is float now, and the quantisation that is left. */
  readonly dtype: FloatDtype | undefined;
  readonly quantization: QuantizationFacts | undefined;
  /** Compares everything written with what it was made from; returns the number of tensors. @throws `ERR_CONVERT_LOSS` */
  verify(written: Tensors, onBytes: (bytes: number) => void, signal: AbortSignal | undefined): Promise<number>;
}

/** The layouts that are written, under the names by which they are asked for. */
export const WRITTEN: Readonly<Partial<Record<Int4Format, QuantizedFormat>>> = {
  'awq-gemm': 'autoawq',
  'pack-quantized': 'compressed-tensors',
};
const ELEMENT_BYTES: Readonly<Record<FloatDtype, number>> = { F32: 4, F16: 2, BF16: 2 };
const isFloat = (dtype: string): dtype is FloatDtype => Object.hasOwn(ELEMENT_BYTES, dtype);

/** The 4-bit matrices among tensors. @throws SparseVilaError `ERR_WEIGHT_…` for layouts that are not read */
export function quantizedModules({ entries }: Tensors, config: QuantizationConfig | undefined): QuantizedModule[] {
  const find = (name: string): TensorEntry | undefined => entries.get(name);
  return [...entries.keys()].flatMap((name) => {
    const [, module] = /^(.*)\.(?:qweight|weight_packed)$/.exec(name) ?? [];
    if (module === undefined) return [];
    const found = quantizedModule(find, module, ...sizeOf(find, module), config);
    const { groupIndex } = found.tensors;
    if (groupIndex !== undefined && words(groupIndex).some((group, i) => group !== Math.floor(i / found.group)))
      throw reordered(groupIndex);
    return [found];
  });
}

/** Outputs and inputs of a 4-bit matrix, from the tensors that it consists of. */
function sizeOf(find: (name: string) => TensorEntry | undefined, module: string): readonly [rows: number, k: number] {
  const size = find(`${module}.weight_shape`);
  if (size !== undefined) return [words(size)[0] ?? 0, words(size)[2] ?? 0]; // int64
  const [
    {
      dtype,
      shape: [a = 0, b = 0],
    },
    {
      shape: [c = 0, d = 0],
    },
  ] = [find(`${module}.qweight`) ?? NONE, find(`${module}.scales`) ?? NONE];
  if (dtype === 'I16') return [4 * a, b];
  if (8 * b === d) return [d, a];
  // GPTQ with as many rows of words as of scales would have groups of 8.
  return a === c ? [a, 8 * b] : [b, 8 * a];
}

const NONE = { dtype: undefined, shape: [] as readonly number[] };

function words(entry: TensorEntry): Int32Array {
  const { buffer } = readBytes(entry);
  return new Int32Array(buffer);
}

function reordered({ file, name }: TensorEntry): SparseVilaError {
  const why = 'inputs are reordered (desc_act, actorder), which no other layout can hold. Quantize without it';
  return new SparseVilaError('ERR_WEIGHT_FORMAT', `${file}: "${name}": ${why}.`);
}

/** The numbers of a 4-bit matrix. */
const read = (module: QuantizedModule): QuantizedMatrix => unpackQuantized(module, readBytes);

/** Float tensors in another type; others as they are. */
export function planFloats(tensors: Tensors, dtype: FloatDtype | undefined): Plan {
  return plan(
    tensors,
    [...tensors.entries.values()].map((entry) => castTask(tensors, entry, dtype)),
    dtype,
    undefined,
  );
}

/**
 * 4-bit matrices in another layout, or as floats (f16 unless `dtype` says otherwise); the rest cast to `dtype`.
 * @param ignore linear layers left in floating point, for the config
 */
export function planQuantized(
  tensors: Tensors,
  modules: readonly QuantizedModule[],
  format: 'float' | QuantizedFormat,
  dtype: FloatDtype | undefined,
  ignore: readonly string[],
): Plan {
  const moduleOf = new Map(
    modules.flatMap((module) => Object.values(module.tensors).map((entry: TensorEntry | undefined) => [entry, module])),
  );
  if (format !== 'float') checkGroups(tensors, modules);
  const seen = new Set<QuantizedModule>();
  const symmetric = format !== 'float' && modules.every((module) => read(module).zero.every((zero) => zero === 8));
  const tasks: Task[] = [];
  for (const entry of tensors.entries.values()) {
    const module = moduleOf.get(entry);
    if (module === undefined) tasks.push(castTask(tensors, entry, dtype));
    else if (!seen.has(module)) {
      seen.add(module);
      tasks.push(format === 'float' ? floatTask(module, dtype ?? 'F16') : packTask(module, format, symmetric));
    }
  }
  const groupSize = modules[0]?.group ?? 128;
  if (format === 'float') return plan(tensors, tasks, dtype ?? 'F16', undefined);
  return plan(tensors, tasks, dtype, { format, groupSize, symmetric, ignore });
}

/** Configs have one group size for all. @throws SparseVilaError `ERR_WEIGHT_FORMAT` */
function checkGroups({ folder }: Tensors, modules: readonly QuantizedModule[]): void {
  const [first] = modules;
  const other = modules.find(({ group }) => group !== first?.group);
  if (first === undefined || other === undefined) return;
  throw new SparseVilaError(
    'ERR_WEIGHT_FORMAT',
    `${folder}: expected one group size, received groups of ${first.group} for "${first.name}" and of ${other.group} for ` +
      `"${other.name}". Only --format float takes both.`,
  );
}

/** One tensor or matrix: what to write, and whether what was written is right. */
interface Task {
  readonly sources: readonly TensorSource[];
  readonly converted: boolean;
  check(written: Tensors): boolean;
}

function plan(
  tensors: Tensors,
  tasks: readonly Task[],
  dtype: FloatDtype | undefined,
  quantization: QuantizationFacts | undefined,
): Plan {
  const sources = tasks.flatMap((task) => task.sources);
  return {
    sources,
    bytes: sources.reduce((sum, { byteLength }) => sum + byteLength, 0),
    converted: tasks.filter(({ converted }) => converted).length,
    dtype,
    quantization,
    verify: async (written, onBytes, signal) => {
      const pace = pacer(signal);
      for (const task of tasks) {
        if (!task.check(written)) throw loss(tensors, task);
        onBytes(task.sources.reduce((sum, { byteLength }) => sum + byteLength, 0));
        await pace();
      }
      return sources.length;
    },
  };
}

function loss({ folder }: Tensors, { sources }: Task): SparseVilaError {
  return new SparseVilaError(
    'ERR_CONVERT_LOSS',
    `${folder}: "${sources[0]?.name}" cannot be held by the format asked for: values read back differ. Try --dtype bf16 or f32.`,
  );
}

function castTask(tensors: Tensors, entry: TensorEntry, dtype: FloatDtype | undefined): Task {
  const { name, shape } = entry;
  if (dtype === undefined || entry.dtype === dtype || !isFloat(entry.dtype)) {
    const check = (written: Tensors): boolean => sameBytes(readBytes(entry), bytesIn(written, name));
    return { sources: [tensors.copy(name)], converted: false, check };
  }
  const byteLength = (entry.bytes / ELEMENT_BYTES[entry.dtype]) * ELEMENT_BYTES[dtype];
  const bytes = (): Uint8Array => encodeFloats(readFloats(entry), dtype);
  return {
    sources: [{ name, dtype, shape, byteLength, bytes }],
    converted: true,
    check: (written) => {
      readFloats(written.entries.get(name) as TensorEntry); // throws for what overflowed
      return sameBytes(bytes(), bytesIn(written, name));
    },
  };
}

function floatTask(module: QuantizedModule, dtype: FloatDtype): Task {
  const { rows, k } = module;
  const name = `${module.name}.weight`;
  const bytes = (): Uint8Array => encodeFloats(dequantizeMatrix(read(module)).values, dtype);
  const source = { name, dtype, shape: [rows, k], byteLength: rows * k * ELEMENT_BYTES[dtype], bytes };
  return { sources: [source], converted: true, check: (written) => sameBytes(bytes(), bytesIn(written, name)) };
}

function packTask(module: QuantizedModule, format: QuantizedFormat, symmetric: boolean): Task {
  const { name, rows, k, group } = module;
  const pack = (): RawTensor[] => {
    const matrix = read(module);
    if (matrix.zero.includes(16)) throw zeroOf16(module);
    return packQuantized(matrix, format, symmetric);
  };
  const sources = pack().map((part, i) => ({
    ...asSource(part, `${name}.`),
    bytes: () => (pack()[i] as RawTensor).bytes,
  }));
  const check = ({ entries }: Tensors): boolean => {
    const after = read({ ...quantizedModule((one) => entries.get(one), name, rows, k), group });
    const before = read(module);
    return (['q', 'zero', 'scale'] as const).every((key) => sameNumbers(before[key], after[key]));
  };
  return { sources, converted: format !== WRITTEN[module.format], check };
}

function zeroOf16({ name, format }: QuantizedModule): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_VALUE',
    `"${name}" has zero points of 16, which ${format} alone can hold: other layouts have 0 to 15. Use --format float.`,
  );
}

const bytesIn = (written: Tensors, name: string): Uint8Array => readBytes(written.entries.get(name) as TensorEntry);
const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
const sameNumbers = (a: ArrayLike<number>, b: ArrayLike<number>): boolean =>
  a.length === b.length && Array.prototype.every.call(a, (value, i) => value === b[i]);
