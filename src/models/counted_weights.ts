// Weights that are looked up in headers and counted, but not read: the tensors that a model's builders request, their form in the files, and
// their size in memory. Knows no architecture, and starts no engine.

import { storedGroup } from '../checkpoint/quantized';
import type { TensorEntry } from '../checkpoint/safetensors';
import { type ErrorCode, SparseVilaError } from '../errors';
import { paddedLength } from '../ops/vectors';
import { type PackedMatrix, packedBytes, type WeightType } from '../ops/weights';
import type { Tensor } from '../runtime/tensor';
import { moduleOf, type Stack, type StackForm, type WeightIndex } from './weight_index';
import type { Weights } from './weights';

/** The values of the load option `weights`; stored: as in the files. */
export type Storage = 'stored' | WeightType;
const STORAGES: readonly Storage[] = ['stored', 'f32', 'f16', 'bf16'];

/** Why `load` would fail. */
export interface Problem {
  readonly code: ErrorCode;
  readonly message: string;
  /** Canonical names of the tensors concerned. */
  readonly tensors: readonly string[];
}

/** The weights of a part. */
export interface Count {
  parameters: number;
  bytes: number;
  readonly formats: Map<string, number>;
  readonly memory: Record<Storage, number>;
  readonly zeroBiases: string[];
}

export const emptyCount = (): Count => ({
  parameters: 0,
  bytes: 0,
  formats: new Map(),
  memory: { stored: 0, f32: 0, f16: 0, bf16: 0 },
  zeroBiases: [],
});

/** Runs `work`; converts an error of the package to a problem. */
export function attempt<T>(problems: Problem[], tensors: readonly string[], work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof SparseVilaError)) throw error;
    problems.push({ code: error.code, message: error.message, tensors });
    return undefined;
  }
}

/** Stands for a tensor that is not read. */
const UNREAD: Tensor = {
  ...{ id: -1, shape: [], dtype: 'float32', size: 0, isDisposed: true },
  dataSync: () => {
    throw new SparseVilaError('ERR_INTERNAL', 'inspect: expected no tensor to be read while a model is described.');
  },
  clone: () => UNREAD as never,
  dispose: () => undefined,
};

/** A part whose files cannot be opened. */
export const NO_WEIGHTS: Weights = {
  has: () => false,
  tensor: () => UNREAD,
  typeOf: () => undefined,
  record: () => ({ tensor: UNREAD, present: 0 }),
  matrix: (_, rows, k, { gated = false } = {}) => {
    const outputs = gated ? (rows[0] as number) : rows.reduce((sum, one) => sum + one, 0);
    return { tensor: UNREAD, outputs, inputs: k, type: 'f32', gated };
  },
  constant: () => UNREAD,
  integers: () => UNREAD,
  progress: { done: 0, total: 0 },
  close: () => undefined,
  dispose: () => undefined,
};

const product = (shape: readonly number[]): number => shape.reduce((size, length) => size * length, 1);

/** Weights that are looked up and counted, but not read. */
export function countedWeights(index: WeightIndex, count: Count, problems: Problem[]): Weights {
  const add = (entries: readonly TensorEntry[], format: string, parameters: number): void => {
    for (const entry of entries) {
      index.take(entry);
      count.bytes += entry.bytes;
    }
    count.parameters += parameters;
    count.formats.set(format, (count.formats.get(format) ?? 0) + parameters);
  };
  const occupy = (bytes: (storage: Storage) => number): void => {
    for (const storage of STORAGES) count.memory[storage] += bytes(storage);
  };
  /** An unusable tensor is one problem, and not an extra tensor as well. */
  const settle = (module: string): void => {
    for (const [entry, name] of index.rest())
      if (moduleOf(name) === module || name.startsWith(`${module}.`)) index.take(entry);
  };
  const look = (name: string, shape: readonly number[]): void => {
    const found = attempt(problems, [name], () => index.plain(name, shape));
    if (found === undefined) settle(name);
    else add([found.entry], found.type, product(shape));
  };
  const tensor = (name: string, shape: readonly number[]): Tensor => {
    look(name, shape);
    occupy(() => 4 * product(shape));
    return UNREAD;
  };
  const occupied = (values: readonly number[]): Tensor => {
    occupy(() => 4 * values.length);
    return UNREAD;
  };
  return {
    ...NO_WEIGHTS,
    has: index.has,
    tensor,
    record: (vectors) => {
      for (const source of vectors) {
        if (source === undefined) continue;
        const parts = typeof source === 'number' ? [] : source;
        const shapes = parts.map(([, shape]) => (typeof shape === 'number' ? [shape] : shape));
        for (const [i, [name]] of parts.entries()) look(name, shapes[i] as readonly number[]);
        const length = typeof source === 'number' ? 1 : shapes.reduce((sum, shape) => sum + product(shape), 0);
        occupy(() => 4 * paddedLength(length));
      }
      return NO_WEIGHTS.record([]);
    },
    matrix: (names, rows, k, { gated = false, transposed = false } = {}): PackedMatrix => {
      if (transposed) {
        look(names[0] as string, [k, rows[0] as number]);
        occupy(() => packedBytes('f32', { rows, k, gated }));
        return NO_WEIGHTS.matrix(names, rows, k);
      }
      const stack: Stack = { modules: names.map(moduleOf), rows, k, gated };
      const form = attempt(problems, names, () => index.stack(stack));
      if (form === undefined) stack.modules.forEach(settle);
      else {
        addForm(form, stack, add);
        occupy((storage) => memoryOf(form, stack, storage));
      }
      return NO_WEIGHTS.matrix(names, rows, k, { gated });
    },
    constant: occupied,
    integers: occupied,
  };
}

function addForm(
  form: StackForm,
  { rows, k }: Pick<Stack, 'rows' | 'k'>,
  add: (entries: readonly TensorEntry[], format: string, parameters: number) => void,
): void {
  const size = (i: number): number => (rows[i] as number) * k;
  if (form.kind === 'mixed')
    for (const [i, part] of form.parts.entries()) addForm(part, { rows: rows.slice(i, i + 1), k }, add);
  else if (form.kind === 'plain')
    for (const [i, part] of form.parts.entries())
      if ('entry' in part) add([part.entry], part.type, size(i));
      else add(part.entries, part.format, size(i));
  else if (form.kind === 'int8')
    for (const [i, { tensors }] of form.parts.entries()) add(Object.values(tensors), '8 bits (W8A8)', size(i));
  else
    for (const [i, { tensors, format, group }] of form.parts.entries()) {
      const entries = Object.values(tensors).filter((entry): entry is TensorEntry => entry !== undefined);
      add(entries, `4 bits (${format}), groups of ${group}`, size(i));
    }
}

/** Bytes of the packed matrix. */
export function memoryOf(form: StackForm, stack: Stack, storage: Storage): number {
  const wanted = storage === 'stored' ? undefined : storage;
  if (form.kind === 'int4') return packedBytes('int4', stack, storedGroup(form.parts[0]));
  if (form.kind === 'int8') return packedBytes('int8', stack);
  return packedBytes(wanted ?? (form.kind === 'plain' ? form.parts[0]?.type : undefined) ?? 'f32', stack);
}
