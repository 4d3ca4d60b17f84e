// The tensors of one checkpoint folder by canonical name, from safetensors headers alone: which exist, in which form and shape, and which were
// never requested. `openWeights` loads through it; `inspect` only queries it. Knows no architecture.

import { fp8Module, isFp8 } from '../checkpoint/fp8';
import {
  type Int8Module,
  int8Module,
  isInt8,
  isQuantized,
  isUniform,
  type QuantizedModule,
  quantizedModule,
  storedGroup,
} from '../checkpoint/quantized';
import { type QuantizationConfig, readQuantization } from '../checkpoint/quantized_config';
import { openCheckpoint, type TensorEntry } from '../checkpoint/safetensors';
import { isReordered, type WidenedMatrix, widenedFp8, widenedInt4 } from '../checkpoint/widen';
import { SparseVilaError } from '../errors';
import { STRIP, type WeightType } from '../ops/weights';

const WEIGHT_TYPES: Readonly<Record<string, WeightType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** Modules, named without ".weight", with their numbers of rows and their common number of inputs. */
export interface Stack {
  readonly modules: readonly string[];
  readonly rows: readonly number[];
  readonly k: number;
  /** Whether the two modules are gate and up of a gated MLP. */
  readonly gated: boolean;
}

/** A tensor of floats. */
export interface PlainTensor {
  readonly entry: TensorEntry;
  readonly type: WeightType;
}

/**
 * The form of a stack's modules as they are loaded, floats or quantized; mixed: different forms, which ignore lists and
 * `modules_to_not_convert` produce.
 */
export type StackForm =
  | { readonly kind: 'plain'; readonly parts: readonly (PlainTensor | WidenedMatrix)[] }
  | { readonly kind: 'int4'; readonly parts: readonly [QuantizedModule, ...QuantizedModule[]] }
  | { readonly kind: 'int8'; readonly parts: readonly Int8Module[] }
  | { readonly kind: 'mixed'; readonly parts: readonly StackForm[] };

export interface IndexOptions {
  /** The quantization config to use if the folder's config has none. */
  readonly quantization?: QuantizationConfig | undefined;
  /** Canonical names that may exist but are not read. */
  readonly ignore?: readonly RegExp[];
  /** Maps a name in the file to its canonical name. */
  readonly rename?: (name: string) => string;
  /** The `model_type` that expects the tensors, for messages. */
  readonly family?: string;
}

export interface WeightIndex {
  /** By canonical name, in the order of the files. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** Number of bytes requested so far, and number to be read in all. */
  readonly progress: { readonly done: number; readonly total: number };
  has(name: string): boolean;
  find(name: string): TensorEntry | undefined;
  /** The data type of a float tensor; undefined for other types, and if there is none. */
  typeOf(name: string): WeightType | undefined;
  /** Marks a tensor as read. */
  take(entry: TensorEntry): void;
  /** A float tensor of exactly this shape, ones before it aside; ranks above two may be requested as [first, the rest]. @throws SparseVilaError `ERR_WEIGHT_…` */
  plain(name: string, shape: readonly number[]): PlainTensor;
  /** @throws SparseVilaError `ERR_WEIGHT_…`, `ERR_QUANTIZATION_UNSUPPORTED` */
  stack(stack: Stack): StackForm;
  /** Tensors that were not read, with their canonical names. */
  rest(): readonly (readonly [TensorEntry, string])[];
}

/**
 * Reads the headers of a folder's safetensors files.
 * @throws SparseVilaError `ERR_CHECKPOINT_…`; `ERR_WEIGHT_EXTRA` for two tensors with one canonical name
 */
export function weightIndex(
  folder: string,
  { rename = (name) => name, ignore = [], family, ...given }: IndexOptions,
): WeightIndex {
  const entries = new Map<string, TensorEntry>();
  for (const entry of openCheckpoint(folder).values()) {
    const name = rename(entry.name);
    const other = entries.get(name);
    if (other !== undefined) throw twice(entry, other);
    entries.set(name, entry);
  }
  const quantization = readQuantization(folder) ?? given.quantization;
  const unread = new Map([...entries].map(([name, entry]) => [entry, name]));
  for (const [entry, name] of unread) if (ignore.some((pattern) => pattern.test(name))) unread.delete(entry);
  const total = [...unread.keys()].reduce((sum, entry) => sum + entry.bytes, 0);
  let done = 0;
  let known: QuantizedModule | undefined;
  const find = (name: string): TensorEntry | undefined => entries.get(name);
  const plain = (name: string, shape: readonly number[]): PlainTensor => {
    const entry = findEntry(entries, name, shape, { folder, family });
    const type = WEIGHT_TYPES[entry.dtype];
    if (type === undefined) {
      throw new SparseVilaError(
        'ERR_WEIGHT_DTYPE',
        `${entry.file}: expected BF16, F16 or F32 for "${name}", received ${entry.dtype}.`,
      );
    }
    return { entry, type };
  };
  const formOf = (module: string, rows: number, k: number): Exclude<StackForm, { kind: 'mixed' }> => {
    if (isFp8(find, module))
      return { kind: 'plain', parts: [widenedFp8(fp8Module(find, module, rows, k, quantization))] };
    if (isInt8(find, module)) return { kind: 'int8', parts: [int8Module(find, module, rows, k, quantization)] };
    if (!isQuantized(find, module)) return { kind: 'plain', parts: [plain(`${module}.weight`, [rows, k])] };
    const found = quantizedModule(find, module, rows, k, quantization);
    return isReordered(found) ? { kind: 'plain', parts: [widenedInt4(found)] } : { kind: 'int4', parts: [found] };
  };
  const stack = (given: Stack): StackForm => {
    const { modules, rows, k, gated } = given;
    const forms = modules.map((module, i) => formOf(module, rows[i] as number, k));
    const floats = forms.flatMap((form) => (form.kind === 'plain' ? form.parts : []));
    if (floats.length === modules.length) return { kind: 'plain', parts: floats };
    const bytes = forms.flatMap((form) => (form.kind === 'int8' ? form.parts : []));
    if (bytes.length === modules.length) return { kind: 'int8', parts: bytes };
    const [first, ...others] = forms.flatMap((form) => (form.kind === 'int4' ? form.parts : []));
    const nibbles = first === undefined ? [] : [first, ...others];
    nibbles.forEach(storedGroup);
    const isStackable = gated || rows.slice(0, -1).every((count) => count % STRIP === 0);
    if (first === undefined || nibbles.length < modules.length || !isUniform(nibbles) || !isStackable)
      return each(given);
    known ??= first;
    if (known.format !== first.format) throw mixedFormats(known, first);
    return { kind: 'int4', parts: [first, ...others] };
  };
  const each = ({ modules, rows, k }: Stack): StackForm => ({
    kind: 'mixed',
    parts: modules.map((module, i) => stack({ modules: [module], rows: [rows[i] as number], k, gated: false })),
  });
  return {
    entries,
    get progress() {
      return { done, total };
    },
    has: (name) => entries.has(name) || (name.endsWith('.weight') && isQuantized(find, moduleOf(name))),
    find,
    typeOf: (name) => WEIGHT_TYPES[find(name)?.dtype ?? ''],
    take: (entry) => {
      if (unread.delete(entry)) done += entry.bytes;
    },
    plain,
    stack,
    rest: () => [...unread],
  };
}

/** A weight's name without `.weight`. */
export const moduleOf = (name: string): string => name.replace(/\.weight$/, '');

/** Whether an extra tensor is allowed if its values are zeros: a bias, which AutoGPTQ writes for every linear layer. */
export const isOptionalBias = ({ shape, dtype }: TensorEntry, name: string): boolean =>
  name.endsWith('.bias') && shape.length === 1 && dtype in WEIGHT_TYPES;

/** The error for tensors that were never requested. */
export function extraWeights(folder: string, names: readonly string[], family?: string): SparseVilaError {
  const shown = names.slice(0, 5).join(', ');
  return new SparseVilaError(
    'ERR_WEIGHT_EXTRA',
    `${folder}: ${names.length} tensors that this model${family === undefined ? '' : ` of type ${family}`} does not use: ${shown}${names.length > 5 ? ', …' : ''}. ` +
      'Running without them would be a different model; is the model type right?' +
      (names.every((name) => name.endsWith('.bias')) ? ' (Biases may be there when they are all zero.)' : ''),
  );
}

const ofModel = (family: string | undefined): string => (family === undefined ? '' : ` of a model of type ${family}`);

/** The entry of a name, its shape checked; a tensor of rank above two (a convolution) may be requested as [first, the rest]. */
function findEntry(
  entries: ReadonlyMap<string, TensorEntry>,
  name: string,
  shape: readonly number[],
  { folder, family }: { readonly folder: string; readonly family: string | undefined },
): TensorEntry {
  const entry = entries.get(name);
  if (entry === undefined) {
    const end = name.slice(name.lastIndexOf('.', name.lastIndexOf('.') - 1));
    const near = [...entries].flatMap(([other, own]) => (other.endsWith(end) ? own.name : []));
    throw new SparseVilaError(
      'ERR_WEIGHT_MISSING',
      `${folder}: expected a tensor "${name}" [${shape}]${ofModel(family)}, but the checkpoint has none` +
        `${near.length > 0 ? ` (it has ${near.slice(0, 3).join(', ')})` : ''}. Is this the whole checkpoint, of this model type?`,
    );
  }
  // Learned rows may be stored for batches of one.
  const extra = Math.max(0, entry.shape.length - shape.length);
  const own = entry.shape.slice(0, extra).every((size) => size === 1) ? entry.shape.slice(extra) : entry.shape;
  const [first = 0, ...rest] = own;
  const flat = rest.length > 1 && shape.length === 2 ? [first, rest.reduce((a, b) => a * b, 1)] : own;
  if (flat.length !== shape.length || flat.some((size, i) => size !== shape[i])) {
    throw new SparseVilaError(
      'ERR_WEIGHT_SHAPE',
      `${entry.file}: expected shape [${shape}] for "${name}"${ofModel(family)}, received [${entry.shape}]. ` +
        'Do the config files belong to these weights?',
    );
  }
  return entry;
}

function twice({ file, name }: TensorEntry, other: TensorEntry): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_EXTRA',
    `${file}: expected one tensor for each weight, received "${name}" and "${other.name}" in ${other.file} for the same. Which one counts ` +
      'cannot be told: remove the other.',
  );
}

function mixedFormats(one: QuantizedModule, other: QuantizedModule): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_FORMAT',
    `${other.tensors.weight.file}: expected one 4-bit format in a checkpoint, received ${one.format} for "${one.name}" and ` +
      `${other.format} for "${other.name}".`,
  );
}
