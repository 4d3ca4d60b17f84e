// Which modules of a checkpoint are held in 8 bits, by their tensors' names, types and shapes: `X.weight` int8 [out, in] with one
// `X.weight_scale` per output, activations rounded per token as the product runs (W8A8). Knows no architecture.
// Source: compressed-tensors 0.10, format int-quantized; SmoothQuant (arXiv 2211.10438).

import { type ErrorCode, messageOf, SparseVilaError } from '../errors';
import type { WeightType } from '../ops/weights';
import type { QuantizationConfig } from './quantized_config';
import type { TensorDtype, TensorEntry } from './safetensors';

type Find = (name: string) => TensorEntry | undefined;

/** One linear layer [rows, k] in 8 bits, its tensors' types and shapes checked. */
export interface Int8Module {
  readonly name: string;
  readonly rows: number;
  readonly weight: TensorEntry;
  /** [rows] or [rows, 1] */
  readonly scales: TensorEntry;
  readonly scaleType: WeightType;
}

const SCALE_TYPES: Readonly<Partial<Record<TensorDtype, WeightType>>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** Tensors that would change the result and that nothing here computes: zero points, order, fixed activation scales, outliers. */
const NOT_COMPUTED = ['weight_zero_point', 'weight_g_idx', 'input_scale', 'input_zero_point', 'output_scale', 'SCB'];

/** Whether the checkpoint holds `module` in 8 bits. */
export function isInt8(find: Find, module: string): boolean {
  return find(`${module}.weight`)?.dtype === 'I8';
}

/**
 * Modules in 8 bits that are to be packed into one matrix [rows, k]: q, k and v, or one alone. The tensors decide; a config has
 * to agree.
 * @throws SparseVilaError `ERR_WEIGHT_MISSING` (scales), `ERR_WEIGHT_DTYPE`, `ERR_WEIGHT_SHAPE`, `ERR_WEIGHT_FORMAT` (parts
 *   that are not all of 8 bits, zero points, fixed activation scales, gate and up, a config of another format).
 */
export function int8Stack(
  find: Find,
  modules: readonly string[],
  rows: readonly number[],
  k: number,
  { gated, config }: { readonly gated: boolean; readonly config: QuantizationConfig | undefined },
): readonly Int8Module[] {
  const other = modules.find((module) => !isInt8(find, module));
  const [first = ''] = modules.filter((module) => isInt8(find, module));
  if (other !== undefined) {
    throw wrong('FORMAT', other, `expected 8-bit weights like those of "${first}", which it shares one product with`);
  }
  if (gated) throw wrong('FORMAT', first, 'gated MLPs (gate_proj, up_proj) in 8 bits are not supported');
  if (config !== undefined && config.layout !== 'int-quantized') {
    throw wrong('FORMAT', first, `the weight is of 8 bits (I8), but ${config.file} says ${config.layout}`);
  }
  return modules.map((module, i) => int8Module(find, module, rows[i] ?? 0, k));
}

function int8Module(find: Find, module: string, rows: number, k: number): Int8Module {
  const [weight, scales] = [find(`${module}.weight`), find(`${module}.weight_scale`)];
  if (weight === undefined || scales === undefined) {
    throw wrong('MISSING', module, `expected a tensor "${module}.weight_scale" beside the 8-bit weights, found none`);
  }
  const extra = NOT_COMPUTED.find((name) => find(`${module}.${name}`) !== undefined);
  if (extra !== undefined) {
    const expected = 'symmetric weights with one scale per output, and activations rounded per token';
    throw wrong('FORMAT', module, `"${module}.${extra}" is not supported: of 8 bits we read ${expected}`);
  }
  requireShape(weight, [[rows, k]]);
  requireShape(scales, [[rows, 1], [rows]]);
  const scaleType = SCALE_TYPES[scales.dtype];
  if (scaleType !== undefined) return { name: module, rows, weight, scales, scaleType };
  throw new SparseVilaError(
    'ERR_WEIGHT_DTYPE',
    `${scales.file}: expected F32, F16 or BF16 for "${scales.name}", received ${scales.dtype}.`,
  );
}

function requireShape({ name, file, shape }: TensorEntry, expected: readonly (readonly number[])[]): void {
  if (expected.some((sizes) => sizes.length === shape.length && sizes.every((size, i) => size === shape[i]))) return;
  throw new SparseVilaError(
    'ERR_WEIGHT_SHAPE',
    `${file}: expected shape [${expected.join('] or [')}] for "${name}", received [${shape}]. Of 8-bit weights we read those ` +
      'with one scale per output. Do the config files belong to these weights?',
  );
}

function wrong(kind: 'FORMAT' | 'MISSING', module: string, why: string): SparseVilaError {
  const code: ErrorCode = `ERR_WEIGHT_${kind}`;
  return new SparseVilaError(code, `"${module}": ${why}.`);
}

/** The packing op's "scale n of part i is not finite" with the tensor's name and file; any other error as it is. */
export function nameInt8Parts(error: unknown, modules: readonly Int8Module[]): unknown {
  const [, element, part] = /scale (\d+) of part (\d+) is not finite/.exec(messageOf(error)) ?? [];
  const scales = part === undefined ? undefined : modules[Number(part)]?.scales;
  if (scales === undefined) return error;
  return new SparseVilaError(
    'ERR_WEIGHT_VALUE',
    `${scales.file}: "${scales.name}" [${scales.shape}]: element ${element} is NaN or infinite. Download the file again.`,
    { cause: error },
  );
}
