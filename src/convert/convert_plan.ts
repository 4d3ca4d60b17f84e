// What a conversion writes for each tensor of one folder, and how it is checked afterwards. Matrices are made when their turn
// comes, so that only one is in memory. Knows no folders' layout.

import type { QuantizationFacts } from '../checkpoint/export';
import { foreignModule, readForeign } from '../checkpoint/foreign_formats';
import { packQuantized, type QuantizedFormat, type RawTensor, unpackQuantized } from '../checkpoint/formats';
import { encodeFloats, type FloatDtype } from '../checkpoint/half';
import type { QuantizedModule } from '../checkpoint/quantized';
import type { QuantizationConfig } from '../checkpoint/quantized_config';
import { dequantizeMatrix, type QuantizedMatrix } from '../checkpoint/round';
import type { TensorEntry } from '../checkpoint/safetensors';
import type { TensorSource } from '../checkpoint/safetensors_writer';
import { readBytes, readFloats, type Tensors } from '../checkpoint/tensors';
import { SparseVilaError } from '../errors';
import { pacer } from '../models/pacer';

/** A 4-bit matrix of a checkpoint. */
export interface Module4 {
  readonly name: string;
  /** Undefined: one that is read but not written. */
  readonly format: QuantizedFormat | undefined;
  /** The layout's name. */
  readonly layout: string;
  readonly suffixes: readonly string[];
  readonly group: number;
  read(): QuantizedMatrix;
}

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

const SUFFIXES: Readonly<Record<QuantizedFormat, readonly string[]>> = {
  autoawq: ['qweight', 'qzeros', 'scales'],
  'compressed-tensors': ['weight_packed', 'weight_scale', 'weight_shape', 'weight_zero_point'],
};
const ELEMENT_BYTES: Readonly<Record<FloatDtype, number>> = { F32: 4, F16: 2, BF16: 2 };
const isFloat = (dtype: string): dtype is FloatDtype => Object.hasOwn(ELEMENT_BYTES, dtype);

/** The 4-bit matrices among tensors. @throws SparseVilaError `ERR_WEIGHT_…` for layouts that are not read */
export function quantizedModules(tensors: Tensors, config: QuantizationConfig | undefined): Module4[] {
  const modules: Module4[] = [];
  for (const name of tensors.entries.keys()) {
    const [, module, suffix] = /^(.*)\.(qweight|weight_packed)$/.exec(name) ?? [];
    if (module === undefined) continue;
    if (tensors.has(`${module}.weight_g_idx`)) throw ordered(tensors.folder);
    const foreign = suffix === 'qweight' ? foreignModule(tensors, module, config) : undefined;
    const format = suffix === 'qweight' ? 'autoawq' : 'compressed-tensors';
    const group = config?.groupSizes.find((size) => size > 0);
    modules.push(foreign === undefined ? moduleOf(tensors, module, format, group) : fromForeign(foreign));
  }
  return modules;
}

function ordered(folder: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_FORMAT',
    `${folder}: inputs are reordered (actorder), which no other layout can hold. Quantise without it.`,
  );
}

function fromForeign(module: QuantizedModule): Module4 {
  const { name, group, tensors } = module;
  const entries = [tensors.weight, tensors.scales, tensors.zeros, tensors.groupIndex];
  const suffixes = entries.flatMap((entry) => (entry === undefined ? [] : [entry.name.slice(name.length + 1)]));
  return { name, format: undefined, layout: module.format, suffixes, group, read: () => readForeign(module) };
}

function moduleOf(tensors: Tensors, name: string, format: QuantizedFormat, groupSize: number | undefined): Module4 {
  const suffixes = SUFFIXES[format].filter((suffix) => tensors.has(`${name}.${suffix}`));
  const read = (): QuantizedMatrix => {
    const parts = suffixes.map((suffix): [string, RawTensor] => [
      suffix,
      raw(tensors.entries.get(`${name}.${suffix}`) as TensorEntry),
    ]);
    return unpackQuantized(new Map(parts), format, groupSize);
  };
  return { name, format, layout: format, suffixes, group: groupSize ?? read().group, read };
}

function raw(entry: TensorEntry): RawTensor {
  return { name: entry.name, dtype: entry.dtype as RawTensor['dtype'], shape: entry.shape, bytes: readBytes(entry) };
}

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
  modules: readonly Module4[],
  format: 'float' | QuantizedFormat,
  dtype: FloatDtype | undefined,
  ignore: readonly string[],
): Plan {
  const partOf = new Map<string, Module4>(
    modules.flatMap((module) => module.suffixes.map((s) => [`${module.name}.${s}`, module] as const)),
  );
  if (format !== 'float') checkGroups(tensors, modules);
  const seen = new Set<Module4>();
  const symmetric = format !== 'float' && modules.every((module) => module.read().zero.every((zero) => zero === 8));
  const tasks: Task[] = [];
  for (const entry of tensors.entries.values()) {
    const module = partOf.get(entry.name);
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
function checkGroups({ folder }: Tensors, modules: readonly Module4[]): void {
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

function floatTask(module: Module4, dtype: FloatDtype): Task {
  const name = `${module.name}.weight`;
  const { rows, cols } = module.read();
  const bytes = (): Uint8Array => encodeFloats(dequantizeMatrix(module.read()).values, dtype);
  const source = { name, dtype, shape: [rows, cols], byteLength: rows * cols * ELEMENT_BYTES[dtype], bytes };
  return { sources: [source], converted: true, check: (written) => sameBytes(bytes(), bytesIn(written, name)) };
}

function zeroOf16({ name, layout }: Module4): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_VALUE',
    `"${name}" has zero points of 16, which ${layout} alone can hold: other layouts have 0 to 15. Use --format float.`,
  );
}

function packTask(module: Module4, format: QuantizedFormat, symmetric: boolean): Task {
  const pack = (): RawTensor[] => {
    const matrix = module.read();
    if (matrix.zero.includes(16)) throw zeroOf16(module);
    return packQuantized(matrix, format, symmetric);
  };
  const sources = pack().map(
    ({ name, dtype, shape, bytes }, i): TensorSource => ({
      ...{ name: `${module.name}.${name}`, dtype, shape, byteLength: bytes.byteLength },
      bytes: () => (pack()[i] as RawTensor).bytes,
    }),
  );
  const check = (written: Tensors): boolean => {
    const [before, after] = [module.read(), moduleOf(written, module.name, format, module.group).read()];
    return (['q', 'zero', 'scale'] as const).every((key) => sameNumbers(before[key], after[key]));
  };
  return { sources, converted: format !== module.format, check };
}

const bytesIn = (written: Tensors, name: string): Uint8Array => readBytes(written.entries.get(name) as TensorEntry);
const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
const sameNumbers = (a: ArrayLike<number>, b: ArrayLike<number>): boolean =>
  a.length === b.length && Array.prototype.every.call(a, (value, i) => value === b[i]);
