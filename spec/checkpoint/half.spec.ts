// The 16-bit float formats against their definitions: every pattern is decoded, and every tie between neighbors is encoded.
import {
  decodeFloats,
  encodeFloats,
  fromBf16Bits,
  fromF16Bits,
  toBf16Bits,
  toF16Bits,
} from '../../src/checkpoint/half';

const PATTERNS = Array.from({ length: 65536 }, (_, bits) => bits);

it.each([
  ['binary16', fromF16Bits, toF16Bits, 0x7c00],
  ['bfloat16', fromBf16Bits, toBf16Bits, 0x7f80],
] as const)('%s: every number comes back, and ties go to even', (_, from, to, infinity) => {
  const wrong = PATTERNS.filter((bits) => {
    const value = from(bits);
    return Number.isNaN(value) ? !Number.isNaN(from(to(value))) : to(value) !== bits;
  });
  expect(wrong).toEqual([]);
  const ties = PATTERNS.filter((bits) => bits < infinity - 1).filter((bits) => {
    const middle = (from(bits) + from(bits + 1)) / 2;
    const even = bits % 2 === 0 ? bits : bits + 1;
    return to(middle) !== even || to(middle * (1 - 2 ** -23)) !== bits || to(middle * (1 + 2 ** -22)) !== bits + 1;
  });
  // Next to zero the neighbors of a tie cannot be told apart in f32 only for bfloat16's smallest subnormals.
  expect(ties.filter((bits) => from(bits) >= 2 ** -120)).toEqual([]);
});

it('binary16: numbers beyond its range become infinity', () => {
  expect(fromF16Bits(toF16Bits(65519))).toBe(65504);
  expect(fromF16Bits(toF16Bits(65520))).toBe(Number.POSITIVE_INFINITY);
  expect(fromF16Bits(toF16Bits(-1e6))).toBe(Number.NEGATIVE_INFINITY);
});

it.each(['F32', 'F16', 'BF16'] as const)('%s bytes: the round trip is the identity', (dtype) => {
  const values = Float32Array.of(0, -0, 1, -2.5, 2 ** -14, 240, Number.POSITIVE_INFINITY);
  expect(decodeFloats(encodeFloats(values, dtype), dtype)).toEqual(values);
});
