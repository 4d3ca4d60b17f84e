// 8-bit floats with scales, as published FP8 checkpoints have them: `X.weight` in E4M3 or E5M2 beside one scale for the matrix, for each output,
// for each group of inputs, or for each block (DeepSeek, Qwen: 128 × 128). They are widened when they are loaded: value times scale in f32,
// rounded once to the type of the matrix. Activations are not rounded, so fixed scales of activations are not needed.
// Source: transformers 5.24 `integrations/finegrained_fp8.py`, compressed-tensors 0.10 `naive_quantized.py`; OCP 8-bit floating point, 1.0.

import { SparseVilaError } from '../errors';
import type { WeightType } from '../ops/weights';
import { decodeFloats, encodeFloats } from './half';
import type { QuantizationConfig } from './quantized_config';
import { settingsOf } from './quantized_targets';
import type { TensorEntry } from './safetensors';

const FLOAT8 = { F8_E4M3: 'e4m3', F8_E5M2: 'e5m2' } as const;
export type Float8 = (typeof FLOAT8)[keyof typeof FLOAT8];
const SCALES: Readonly<Record<string, WeightType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };
const DTYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const;
/** Outputs and inputs per scale where no config says it. */
const BLOCK = [128, 128] as const;

/** One linear layer [rows, k] in 8-bit floats, its tensors' types and shapes checked. */
export interface Fp8Module {
  readonly name: string;
  readonly rows: number;
  readonly k: number;
  readonly float: Float8;
  /** Outputs and inputs per scale; blocks at the edges may be smaller. */
  readonly block: readonly [rows: number, k: number];
  readonly scaleType: WeightType;
  readonly tensors: { readonly weight: TensorEntry; readonly scales: TensorEntry };
  /** Tensors beside them that are not needed. */
  readonly unread: readonly TensorEntry[];
}

type Find = (name: string) => TensorEntry | undefined;

/** Whether the checkpoint holds `module` in 8-bit floats. */
export const isFp8 = (find: Find, module: string): boolean =>
  Object.hasOwn(FLOAT8, find(`${module}.weight`)?.dtype ?? '');

/** What may accompany 8-bit floats and is not needed: scales of activations and of a cache in 8 bits. */
const UNREAD = ['input_scale', 'output_scale', 'activation_scale', 'activation_scale_inv', 'k_scale', 'v_scale'];

/**
 * The 8-bit form of `module`, a matrix [rows, k]. The shapes of weights and scales decide; where the config names blocks, they have to fit these.
 * @throws SparseVilaError `ERR_WEIGHT_MISSING` (scales), `ERR_WEIGHT_DTYPE`, `ERR_WEIGHT_SHAPE`, `ERR_WEIGHT_FORMAT` (zero points)
 */
export function fp8Module(
  find: Find,
  module: string,
  rows: number,
  k: number,
  config: QuantizationConfig | undefined,
): Fp8Module {
  const weight = find(`${module}.weight`) as TensorEntry;
  const scales = find(`${module}.weight_scale_inv`) ?? find(`${module}.weight_scale`);
  if (scales === undefined) {
    const names = `"${module}.weight_scale_inv" or "${module}.weight_scale"`;
    throw wrong('MISSING', weight, `expected a tensor ${names} beside the 8-bit floats (${weight.dtype}), found none`);
  }
  if (find(`${module}.weight_zero_point`) !== undefined)
    throw wrong('FORMAT', weight, 'zero points of 8-bit floats are not supported');
  const scaleType = SCALES[scales.dtype];
  if (scaleType === undefined)
    throw wrong('DTYPE', scales, `expected F32, F16 or BF16 scales, received ${scales.dtype}`);
  if (weight.shape.length !== 2 || weight.shape[0] !== rows || weight.shape[1] !== k) {
    const question = 'Do the config files belong to these weights?';
    throw wrong('SHAPE', weight, `expected shape [${rows},${k}], received [${weight.shape}]. ${question}`);
  }
  const settings = config && settingsOf(config, weight.name.replace(/\.weight$/, ''));
  const block = blockOf(scales, rows, k, settings?.block);
  const float = FLOAT8[weight.dtype as keyof typeof FLOAT8];
  const unread = UNREAD.map((name) => find(`${module}.${name}`)).filter((entry) => entry !== undefined);
  return { name: module, rows, k, float, block, scaleType, tensors: { weight, scales }, unread };
}

/** Outputs and inputs per scale, from the shape of the scales. */
function blockOf(
  scales: TensorEntry,
  rows: number,
  k: number,
  named: readonly [number, number] | undefined,
): readonly [number, number] {
  const [a, b = 1] = scales.shape;
  const isFlat = scales.shape.length < 2;
  if (scales.shape.length > 2) throw wrongScales(scales, rows, k);
  if (isFlat && (a ?? 1) === 1) return [rows, k];
  if (isFlat && a === rows) return [1, k];
  const fits = ([r, c]: readonly [number, number]): boolean => a === Math.ceil(rows / r) && b === Math.ceil(k / c);
  const divided = [rows / (a ?? 1), k / b] as const;
  const choices = named === undefined ? [[rows, k] as const, BLOCK, [1, k] as const, divided] : [named];
  const found = choices.find(
    (size) => size.every((side) => Number.isInteger(side) && side > 0) && !isFlat && fits(size),
  );
  if (found === undefined) throw wrongScales(scales, rows, k);
  return found;
}

const BIAS = { e4m3: 7, e5m2: 15 } as const;
const FRACTION = { e4m3: 3, e5m2: 2 } as const;

/** The 256 values of an 8-bit float: E4M3 without infinities, as `float8_e4m3fn` of torch, and E5M2, as `float8_e5m2`. */
export function float8Values(float: Float8): Float32Array {
  const [bias, bits] = [BIAS[float], FRACTION[float]];
  return Float32Array.from({ length: 256 }, (_, code) => {
    const [exponent, fraction] = [(code & 127) >> bits, code & ((1 << bits) - 1)];
    const sign = code & 128 ? -1 : 1;
    if (float === 'e4m3' && (code & 127) === 127) return Number.NaN;
    if (float === 'e5m2' && exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    const digits = exponent === 0 ? fraction : fraction + (1 << bits);
    return sign * digits * 2 ** (Math.max(1, exponent) - bias - bits);
  });
}

/**
 * The bytes of a module as a plain matrix [rows, k] of `type`: value times scale in f32, rounded once.
 * @throws SparseVilaError `ERR_WEIGHT_VALUE` for scales that are not finite, and for NaN and infinite weights
 */
export function widenFp8(module: Fp8Module, type: WeightType, bytesOf: (entry: TensorEntry) => Uint8Array): Uint8Array {
  const { rows, k, float, block, scaleType, tensors } = module;
  const codes = bytesOf(tensors.weight);
  const scales = decodeFloats(bytesOf(tensors.scales), DTYPES[scaleType]);
  const bad = scales.findIndex((scale) => !Number.isFinite(scale));
  if (bad >= 0) throw wrong('VALUE', tensors.scales, `element ${bad} is ${scales[bad]}, expected finite scales`);
  const values = float8Values(float);
  for (const [code, value] of values.entries()) {
    const at = Number.isFinite(value) ? -1 : codes.indexOf(code);
    if (at >= 0) throw wrong('VALUE', tensors.weight, `element ${at} is ${value}, expected finite numbers`);
  }
  const wide = type === 'f32' ? new Uint32Array(rows * k) : new Uint16Array(rows * k);
  const columns = Math.ceil(k / block[1]);
  // All products with one scale are looked up in a table of 256, already rounded.
  for (let row = 0; row < rows; row += block[0])
    for (let column = 0; column < columns; column++) {
      const scale = scales[(row / block[0]) * columns + column] as number;
      const table = bitsOf(values, scale, type);
      const [begin, end] = [column * block[1], Math.min(k, (column + 1) * block[1])];
      for (let n = row; n < Math.min(rows, row + block[0]); n++) lookUp(codes, table, wide, n * k + begin, n * k + end);
    }
  return new Uint8Array(wide.buffer);
}

/** A loop of its own, which the compiler specializes. */
function lookUp(codes: Uint8Array, table: Bits, wide: Bits, begin: number, end: number): void {
  for (let i = begin; i < end; i++) wide[i] = table[codes[i] as number] as number;
}

type Bits = Uint32Array | Uint16Array;

/** The bits of all products with a scale. */
function bitsOf(values: Float32Array, scale: number, type: WeightType): Bits {
  const bytes = encodeFloats(
    values.map((value) => value * scale),
    DTYPES[type],
  );
  return type === 'f32' ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
}

function wrongScales(scales: TensorEntry, rows: number, k: number): SparseVilaError {
  return wrong(
    'SHAPE',
    scales,
    `expected one scale for a matrix [${rows},${k}], for each output, or for each block of ${BLOCK.join(' x ')} or of the config's ` +
      `size, received [${scales.shape}]`,
  );
}

function wrong(
  kind: 'MISSING' | 'FORMAT' | 'DTYPE' | 'SHAPE' | 'VALUE',
  entry: TensorEntry,
  why: string,
): SparseVilaError {
  return new SparseVilaError(`ERR_WEIGHT_${kind}`, `${entry.file}: "${entry.name}": ${why}.`);
}
