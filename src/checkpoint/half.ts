// Conversion to and from the two 16-bit float formats of checkpoints, bit for bit as in IEEE 754 (round to nearest, ties to even).
// Knows neither tensors nor files.

const { abs } = Math;
const FLOAT = new Float32Array(1);
const BITS = new Uint32Array(FLOAT.buffer);

/** The bfloat16 bits nearest to x; NaN stays NaN. */
export function toBf16Bits(x: number): number {
  FLOAT[0] = x;
  const bits = BITS[0] as number;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBf16Bits(bits: number): number {
  BITS[0] = bits << 16;
  return FLOAT[0] as number;
}

/** The binary16 bits nearest to x; beyond 65,504 infinity. */
export function toF16Bits(x: number): number {
  FLOAT[0] = x;
  const bits = BITS[0] as number;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2^-14: a multiple of 2^-24, and adding 0.5 rounds to it, ties to even, since f32 has 23 fraction bits.
    FLOAT[0] = abs(x) + 0.5;
    return sign | ((BITS[0] as number) - 0x3f000000);
  }
  // Drop 13 bits to nearest even and move the exponent's bias from 127 to 15.
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

export function fromF16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** x rounded to binary16. */
export const roundToF16 = (x: number): number => fromF16Bits(toF16Bits(x));

/** Data types of plain tensors, in safetensors' names. */
export type FloatDtype = 'F32' | 'F16' | 'BF16';

/** The bytes of `values` in a data type, little-endian. */
export function encodeFloats(values: Float32Array, dtype: FloatDtype): Uint8Array {
  if (dtype === 'F32') return new Uint8Array(values.slice().buffer);
  const encode = dtype === 'F16' ? toF16Bits : toBf16Bits;
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) bits[i] = encode(values[i] as number);
  return new Uint8Array(bits.buffer);
}

/** The inverse of `encodeFloats`; `bytes` must start at a multiple of the element's size in its buffer. */
export function decodeFloats(bytes: Uint8Array, dtype: FloatDtype): Float32Array {
  if (dtype === 'F32') return new Float32Array(bytes.slice().buffer);
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const values = new Float32Array(bits.length);
  if (dtype === 'BF16') {
    const wide = new Uint32Array(values.buffer);
    for (let i = 0; i < bits.length; i++) wide[i] = (bits[i] as number) << 16;
    return values;
  }
  for (let i = 0; i < bits.length; i++) values[i] = fromF16Bits(bits[i] as number);
  return values;
}
