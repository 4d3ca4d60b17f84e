// 4-bit layouts that are read but not written: AutoAWQ gemv and gemv_fast (TinyChat v2), GPTQ v1 and v2 without activation order.
// Which one a module has is said by its tensors' types and shapes alone. Knows no architecture.
// Source: AutoAWQ `awq/modules/linear/{gemv,gemv_fast}.py`, GPTQModel `nn_modules/qlinear`; see native/kernels/int4_formats.h.

import { SparseVilaError } from '../errors';
import { decodeFloats, fromF16Bits, toF16Bits } from './half';
import { type QuantizedModule, quantizedModule } from './quantized';
import type { QuantizationConfig } from './quantized_config';
import type { QuantizedMatrix } from './round';
import type { TensorEntry } from './safetensors';
import { readBytes, type Tensors } from './tensors';

/** Outputs and inputs of the matrix in `name.qweight`, from its shape and that of its scales; undefined for AutoAWQ gemm. */
function foreignSize(weight: TensorEntry, scales: TensorEntry): readonly [rows: number, k: number] | undefined {
  const [a = 0, b = 0] = weight.shape;
  const [c = 0, d = 0] = scales.shape;
  if (weight.dtype === 'I16') return [4 * a, b];
  if (8 * b === d) return undefined;
  // GPTQ with as many rows of words as of scales would have groups of 8.
  return a === c ? [a, 8 * b] : b === d ? [b, 8 * a] : undefined;
}

/**
 * The module `name` when it is in one of these layouts.
 * @throws SparseVilaError `ERR_WEIGHT_…` as `quantizedModule`; `ERR_WEIGHT_FORMAT` for activation order
 */
export function foreignModule(
  tensors: Tensors,
  name: string,
  config: QuantizationConfig | undefined,
): QuantizedModule | undefined {
  const find = (one: string): TensorEntry | undefined => tensors.entries.get(one);
  const [weight, scales] = [find(`${name}.qweight`), find(`${name}.scales`)];
  const size = weight && scales && foreignSize(weight, scales);
  if (size === undefined) return undefined;
  const module = quantizedModule(find, name, ...size, config);
  const order = module.tensors.groupIndex;
  if (order !== undefined && words(order).some((group, i) => group !== Math.floor(i / module.group))) {
    throw wrong(
      'FORMAT',
      order,
      'inputs are reordered (desc_act), which no other layout can hold. Quantise without it',
    );
  }
  return module;
}

/**
 * Nibbles, scales and zero points. Exactly what the layout says; of gemv_fast, which stores -z s rounded to f16, the z it was
 * rounded from.
 * Zero points are 0 .. 15, or 16 in GPTQ v1.
 * @throws SparseVilaError `ERR_WEIGHT_VALUE` for a zero of gemv_fast that is no product of its scale
 */
export function readForeign(module: QuantizedModule): QuantizedMatrix {
  const { rows, k: cols, group, format } = module;
  const nibble = NIBBLES[format];
  if (nibble === undefined) throw new Error(`${format} is read elsewhere`);
  const { weight, scales, zeros } = module.tensors;
  const at = nibble(weight, rows, cols);
  const q = new Uint8Array(rows * cols);
  for (let n = 0, i = 0; n < rows; n++) for (let k = 0; k < cols; k++, i++) q[i] = at(n, k);
  const groups = cols / group;
  const stored = decodeFloats(
    readBytes(scales),
    module.scaleType === 'bf16' ? 'BF16' : module.scaleType === 'f16' ? 'F16' : 'F32',
  );
  const width = scales.shape[1] ?? 0;
  // gemv has a row of scales per output, the others one per group.
  const index = (n: number, g: number): number => (format === 'awq-gemv' ? n * width + g : g * rows + n);
  const zeroAt = zeroPoints(module, stored, index);
  const scale = new Float32Array(rows * groups);
  const zero = new Uint8Array(rows * groups);
  for (let n = 0, i = 0; n < rows; n++)
    for (let g = 0; g < groups; g++, i++) {
      scale[i] = stored[index(n, g)] as number;
      const z = zeroAt(n, g);
      if (!(z >= 0 && z <= 16))
        throw wrong(
          'VALUE',
          zeros ?? weight,
          `the zero point of output ${n}, group ${g} is ${z}, no whole number from 0 to 16`,
        );
      zero[i] = z;
    }
  return { rows, cols, group, q, scale, zero };
}

type At = (row: number, col: number) => number;
const NIBBLES: Readonly<
  Partial<Record<QuantizedModule['format'], (entry: TensorEntry, rows: number, cols: number) => At>>
> = {
  'awq-gemv': (entry, _, cols) => {
    const packed = words(entry);
    return (n, k) => ((packed[(n * cols + k) >> 3] as number) >>> (4 * (k & 7))) & 15;
  },
  'awq-gemv-fast': (entry, _, cols) => {
    const bytes = readBytes(entry);
    const packed = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
    return (n, k) => {
      const column = 64 * (k >> 6) + 16 * (n & 3) + 8 * ((k >> 5) & 1) + (k & 7);
      return ((packed[(n >> 2) * cols + column] as number) >>> (4 * ((k >> 3) & 3))) & 15;
    };
  },
  gptq: gptqNibbles,
  'gptq-v2': gptqNibbles,
};

function gptqNibbles(entry: TensorEntry, rows: number): At {
  const packed = words(entry);
  return (n, k) => ((packed[(k >> 3) * rows + n] as number) >>> (4 * (k & 7))) & 15;
}

function zeroPoints({ format, rows, tensors: { zeros } }: QuantizedModule, scales: Float32Array, index: At): At {
  if (zeros === undefined) return () => 8;
  if (format === 'awq-gemv-fast') {
    const products = decodeFloats(readBytes(zeros), 'F16');
    return (n, g) => {
      const [product, scale] = [products[index(n, g)] as number, scales[index(n, g)] as number];
      const z = scale === 0 ? 0 : Math.round(-product / scale);
      return fromF16Bits(toF16Bits(-z * scale)) === product ? z : -product / scale;
    };
  }
  const packed = words(zeros);
  if (format === 'awq-gemv') {
    const width = zeros.shape[1] ?? 0;
    return (n, g) => ((packed[n * width + (g >> 3)] as number) >>> (4 * (g & 7))) & 15;
  }
  const more = format === 'gptq' ? 1 : 0;
  return (n, g) => (((packed[(g * rows + n) >> 3] as number) >>> (4 * (n & 7))) & 15) + more;
}

function words(entry: TensorEntry): Int32Array {
  const bytes = readBytes(entry);
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

function wrong(kind: 'FORMAT' | 'VALUE', { file, name }: TensorEntry, why: string): SparseVilaError {
  return new SparseVilaError(`ERR_WEIGHT_${kind}`, `${file}: "${name}": ${why}.`);
}
