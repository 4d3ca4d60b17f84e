// Determines the quantized form of a module from its tensors' names, types and shapes: 4 bits of AutoAWQ gemm, gemv and gemv_fast,
// compressed-tensors pack-quantized and GPTQ; 8 bits of compressed-tensors int-quantized, whose activations are rounded per token as the
// product runs (W8A8, SmoothQuant, arXiv 2211.10438). Reads no weights; knows no architecture.
// Source: the packing code of AutoAWQ 0.2, compressed-tensors 0.10 and AutoGPTQ 0.7; see native/kernels/int4_formats.h.

import { type ErrorCode, messageOf, SparseVilaError } from '../errors';
import { type Int4Format, STORED_GROUPS, type WeightType } from '../ops/weights';
import { LAYOUTS } from './formats';
import type { QuantizationConfig } from './quantized_config';
import { settingsOf } from './quantized_targets';
import type { TensorDtype, TensorEntry } from './safetensors';

/** The tensors that replace `<module>.weight`, by role. */
export interface QuantizedTensors {
  readonly weight: TensorEntry;
  readonly scales: TensorEntry;
  /** Absent: symmetric, every zero point is 8. */
  readonly zeros: TensorEntry | undefined;
  readonly groupIndex: TensorEntry | undefined;
  readonly shape: TensorEntry | undefined;
}

/** One linear layer [rows, k] in a 4-bit format, its tensors' types and shapes checked. */
export interface QuantizedModule {
  readonly name: string;
  readonly format: Int4Format;
  readonly rows: number;
  readonly k: number;
  /** Inputs per scale in the file; k if a whole row has one scale. */
  readonly group: number;
  readonly scaleType: WeightType;
  readonly tensors: QuantizedTensors;
}

/** One linear layer [rows, k] in 8 bits: `X.weight` int8 [rows, k] and one `X.weight_scale` per output, [rows] or [rows, 1]. */
export interface Int8Module {
  readonly name: string;
  readonly rows: number;
  readonly scaleType: WeightType;
  readonly tensors: Pick<QuantizedTensors, 'weight' | 'scales'>;
}

type Find = (name: string) => TensorEntry | undefined;
type Shape = readonly number[];

const SCALE_TYPES: Readonly<Partial<Record<TensorDtype, WeightType>>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** Tensors that only accompany 4-bit weights: without a plain weight, they show that the packed one is missing. */
const COMPANIONS = ['qzeros', 'scales', 'scaled_zeros', 'weight_zero_point', 'weight_shape', 'weight_scale'];

/** Whether the checkpoint holds `module` in 4-bit form, even if incomplete. */
export function isQuantized(find: Find, module: string): boolean {
  const has = (name: string): boolean => find(`${module}.${name}`) !== undefined;
  return has('qweight') || has('weight_packed') || (!has('weight') && COMPANIONS.some(has));
}

/**
 * The 4-bit form of `module`, a matrix [rows, k]. The tensors decide; the config only distinguishes GPTQ's versions and must
 * agree with the group size.
 * @throws SparseVilaError `ERR_WEIGHT_MISSING` (scales, zeros or weight_shape), `ERR_WEIGHT_DTYPE`, `ERR_WEIGHT_SHAPE` (shapes that fit no
 *   format, or not the config's group size), `ERR_WEIGHT_FORMAT` (two forms of one module, activation order, odd group sizes).
 */
export function quantizedModule(
  find: Find,
  module: string,
  rows: number,
  k: number,
  config?: QuantizationConfig,
): QuantizedModule {
  const forms = ['weight', 'qweight', 'weight_packed'].filter((form) => find(`${module}.${form}`) !== undefined);
  if (forms.length > 1) throw wrong('FORMAT', module, `expected one form of the weight, found ${forms.join(' and ')}`);
  const tensors = tensorsOf(find, module);
  const settings = config && settingsOf(config, tensors.weight.name.replace(/\.[^.]*$/, ''));
  const { format, group } = recognize(tensors, module, rows, k, settings);
  checkAround(tensors, format, module, settings);
  const { zeros, groupIndex, shape } = tensors;
  requireShape(zeros, [LAYOUTS[format](rows, k, group).shapes.zeros]);
  requireShape(groupIndex, [[k]]);
  requireShape(shape, [[2]]);
  return { name: module, format, rows, k, group, scaleType: scaleTypeOf(tensors.scales), tensors };
}

/**
 * Inputs per scale in the kernels' form, in which scales of larger groups are repeated.
 * @throws SparseVilaError `ERR_WEIGHT_FORMAT` for groups that the kernels do not have
 */
export function storedGroup({ name, group, k }: QuantizedModule): number {
  const found = STORED_GROUPS.find((size) => group % size === 0) ?? (group === k ? 32 : undefined);
  if (found !== undefined && k % group === 0) return found;
  const expected = 'expected a multiple of 32 that divides the inputs, or whole rows';
  throw wrong('FORMAT', name, `groups of ${group} inputs are not supported: ${expected}`);
}

/** Unsupported tensors that would change the result: zero points, order, fixed activation scales, outliers. */
const NOT_COMPUTED = ['weight_zero_point', 'weight_g_idx', 'input_scale', 'input_zero_point', 'output_scale', 'SCB'];

/** Whether the checkpoint holds `module` in 8 bits. */
export const isInt8 = (find: Find, module: string): boolean => find(`${module}.weight`)?.dtype === 'I8';

/**
 * The 8-bit form of `module`, a matrix [rows, k]. The tensors decide; a config must agree.
 * @throws SparseVilaError `ERR_WEIGHT_MISSING` (scales), `ERR_WEIGHT_DTYPE`, `ERR_WEIGHT_SHAPE`, `ERR_WEIGHT_FORMAT` (zero points, fixed
 *   activation scales, a config of another format)
 */
export function int8Module(
  find: Find,
  module: string,
  rows: number,
  k: number,
  config: QuantizationConfig | undefined,
): Int8Module {
  if (config !== undefined && config.layout !== 'int-quantized')
    throw wrong('FORMAT', module, `the weight is of 8 bits (I8), but ${config.file} says ${config.layout}`);
  const [weight, scales] = [find(`${module}.weight`), find(`${module}.weight_scale`)];
  if (weight === undefined || scales === undefined)
    throw wrong('MISSING', module, `expected a tensor "${module}.weight_scale" beside the 8-bit weights, found none`);
  const extra = NOT_COMPUTED.find((name) => find(`${module}.${name}`) !== undefined);
  if (extra !== undefined) {
    const expected = 'symmetric weights with one scale per output, and activations rounded per token';
    throw wrong('FORMAT', module, `"${module}.${extra}" is not supported: of 8 bits we read ${expected}`);
  }
  requireShape(weight, [[rows, k]]);
  requireShape(scales, [[rows, 1], [rows]]);
  return { name: module, rows, scaleType: scaleTypeOf(scales), tensors: { weight, scales } };
}

function scaleTypeOf(scales: TensorEntry): WeightType {
  const type = SCALE_TYPES[scales.dtype];
  if (type === undefined) throw wrongType(scales, 'F16, BF16 or F32');
  return type;
}

/** Whether the 4-bit forms of modules can be packed into one matrix. */
export function isUniform(modules: readonly QuantizedModule[]): boolean {
  const kinds = modules.map(({ format, group, scaleType }) => `${format} ${group} ${scaleType}`);
  return new Set(kinds).size === 1;
}

function tensorsOf(find: Find, module: string): QuantizedTensors {
  const need = (name: string): TensorEntry => {
    const entry = find(`${module}.${name}`);
    if (entry !== undefined) return entry;
    throw wrong(
      'MISSING',
      module,
      `expected a tensor "${module}.${name}" as part of the 4-bit weights, but there is none`,
    );
  };
  const isCompressed = ['weight_packed', 'weight_scale', 'weight_shape', 'weight_zero_point'].some(
    (name) => find(`${module}.${name}`) !== undefined,
  );
  if (isCompressed) {
    return {
      weight: need('weight_packed'),
      scales: need('weight_scale'),
      zeros: find(`${module}.weight_zero_point`),
      groupIndex: find(`${module}.weight_g_idx`),
      shape: need('weight_shape'),
    };
  }
  return {
    weight: need('qweight'),
    scales: need('scales'),
    zeros: find(`${module}.scaled_zeros`) ?? need('qzeros'),
    groupIndex: find(`${module}.g_idx`),
    shape: undefined,
  };
}

/** Format and group size from the types and shapes of weights and scales, which differ between any two formats. */
function recognize(
  { weight, scales }: QuantizedTensors,
  module: string,
  rows: number,
  k: number,
  config: QuantizationConfig | undefined,
): { format: Int4Format; group: number } {
  const named = (config?.groupSizes ?? []).map((size) => (size === -1 ? k : size));
  const counted = scales.shape.map((count) => k / count);
  const groups = [...named, ...[128, 64, 32, k, ...counted].filter((size) => k % size === 0)].filter(Number.isInteger);
  for (const format of candidates(weight, config)) {
    for (const group of groups) {
      const { shapes } = LAYOUTS[format](rows, k, group);
      if (!same(weight.shape, shapes.weight) || !same(scales.shape, shapes.scales)) continue;
      if (named.length === 0 || named.includes(group)) return { format, group };
      throw wrong(
        'SHAPE',
        module,
        `the scales [${scales.shape}] are of groups of ${group} inputs, but ${config?.file} says ${named.join(' or ')}`,
      );
    }
  }
  throw wrong(
    'SHAPE',
    module,
    `expected a 4-bit matrix of ${rows} outputs and ${k} inputs, received packed weights ${weight.dtype} [${weight.shape}] and ` +
      `scales [${scales.shape}], which fit ${candidates(weight, config).join(', ')} in no group size. Is it of another width ` +
      'than 4 bits, or do the config files belong to other weights?',
  );
}

function candidates(weight: TensorEntry, config: QuantizationConfig | undefined): readonly Int4Format[] {
  const compressed = weight.name.endsWith('.weight_packed');
  if (weight.dtype !== 'I32' && (compressed || weight.dtype !== 'I16'))
    throw wrongType(weight, compressed ? 'I32' : 'I32 or I16');
  if (compressed) return ['pack-quantized'];
  if (weight.dtype === 'I16') return ['awq-gemv-fast'];
  return ['awq-gemm', 'awq-gemv', config?.layout === 'gptq_v2' ? 'gptq-v2' : 'gptq'];
}

/** Checks the tensors beside weights and scales: zeros of the right kind, and the order of the inputs where the config says that there is one. */
function checkAround(
  { weight, zeros, groupIndex, shape }: QuantizedTensors,
  format: Int4Format,
  module: string,
  config: QuantizationConfig | undefined,
): void {
  if (config?.activationOrder && groupIndex === undefined) {
    throw wrong(
      'FORMAT',
      module,
      `${config.file} says that inputs are reordered (desc_act, actorder), but there is no g_idx beside "${weight.name}"`,
    );
  }
  if (zeros === undefined && config?.layout === 'pack-quantized' && config.symmetric === false) {
    throw wrong('MISSING', module, `${config.file} says asymmetric, but "${weight.name}" has no zero points beside it`);
  }
  const zeroType = format === 'awq-gemv-fast' ? 'F16' : 'I32';
  if (zeros !== undefined && zeros.dtype !== zeroType) throw wrongType(zeros, zeroType);
  if (groupIndex !== undefined && groupIndex.dtype !== 'I32') throw wrongType(groupIndex, 'I32');
  if (shape !== undefined && shape.dtype !== 'I64') throw wrongType(shape, 'I64');
}

const same = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((size, i) => size === b[i]);

function requireShape(entry: TensorEntry | undefined, expected: readonly Shape[]): void {
  if (entry === undefined || expected.some((shape) => same(entry.shape, shape))) return;
  throw new SparseVilaError(
    'ERR_WEIGHT_SHAPE',
    `${entry.file}: expected shape [${expected.join('] or [')}] for "${entry.name}", received [${entry.shape}]. Do the config files belong ` +
      'to these weights?',
  );
}

function wrongType(entry: TensorEntry, expected: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_WEIGHT_DTYPE',
    `${entry.file}: expected ${expected} for "${entry.name}", received ${entry.dtype}. Only 4-bit integer weights are read.`,
  );
}

function wrong(kind: 'FORMAT' | 'MISSING' | 'SHAPE', module: string, why: string): SparseVilaError {
  return new SparseVilaError(`ERR_WEIGHT_${kind}`, `"${module}": ${why}.`);
}

const ROLES: Readonly<Record<string, readonly [keyof QuantizedTensors, ErrorCode]>> = {
  scales: ['scales', 'ERR_WEIGHT_VALUE'],
  zeros: ['zeros', 'ERR_WEIGHT_VALUE'],
  g_idx: ['groupIndex', 'ERR_WEIGHT_FORMAT'],
  weight_shape: ['shape', 'ERR_WEIGHT_SHAPE'],
};

/** Adds the tensor's name and file to the packing op's "part i: <role>: element n is …"; returns other errors unchanged. */
export function nameParts(
  error: unknown,
  modules: readonly { readonly tensors: Partial<QuantizedTensors> }[],
): unknown {
  const text = messageOf(error).replace(
    /scale (\d+) of part (\d+) is not finite/,
    'part $2: scales: element $1 is NaN or infinite',
  );
  const [, part, role = '', why] = /part (\d+): (\w+): (.*)/s.exec(text) ?? [];
  const [key, code] = ROLES[role] ?? [];
  const entry = key && modules[Number(part)]?.tensors[key];
  if (entry === undefined || code === undefined) return error;
  return new SparseVilaError(code, `${entry.file}: "${entry.name}" [${entry.shape}]: ${why}.`, { cause: error });
}
