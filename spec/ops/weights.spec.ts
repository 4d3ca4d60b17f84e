// 16-bit conversions: every pattern is loaded exactly, and rounding goes to the nearest, ties to even, subnormals, infinities
// and NaN included. Bits are compared, because NaN is not equal to itself.

import { embed, linear } from '../../src/ops/linear';
import { float32, floats } from '../../src/ops/run';
import { loadTensor, packArrays, packMatrix } from '../../src/ops/weights';
import { start } from '../../src/runtime/start';
import { keeper } from '../../testing/ops/cases/case';
import { random, roundToBf16, roundToF16 } from '../../testing/ops/cases/data';
import { atLevel, levels, wordsOf } from './levels';

const keep = keeper();
afterAll(() => keep.dispose());

const PATTERNS = 65536;
type Half = 'bf16' | 'f16';

/** The value of a 16-bit pattern, by its definition. NaN for every NaN. */
function numberOf(pattern: number, type: Half): number {
  const [exponentBits, mantissaBits] = type === 'bf16' ? [8, 7] : [5, 10];
  const sign = pattern >> 15 ? -1 : 1;
  const exponent = (pattern >> mantissaBits) & (2 ** exponentBits - 1);
  const mantissa = pattern & (2 ** mantissaBits - 1);
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  const fraction = mantissa / 2 ** mantissaBits;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}

/** The positions at which values differ (0 and -0 differ; NaN equals NaN). */
function differing(actual: Float32Array, expected: (i: number) => number): string[] {
  const wrong: string[] = [];
  actual.forEach((value, i) => {
    if (!Object.is(value, expected(i))) wrong.push(`${i}: ${value} instead of ${expected(i)}`);
  });
  return wrong;
}

function allPatterns<T>(body: (source: number) => T): T {
  const { native } = start();
  const source = native.openMemory(Uint16Array.from({ length: PATTERNS }, (_, i) => i));
  try {
    return body(source);
  } finally {
    native.release(source);
  }
}

describe.each(levels())('at %s', (level) => {
  test.each(['bf16', 'f16'] as const)('every %s pattern is loaded exactly', (type) => {
    atLevel(level, () =>
      allPatterns((source) => {
        const loaded = keep.tensor(loadTensor({ source, offset: 0, type }, [PATTERNS]));
        expect(differing(floats(loaded), (i) => numberOf(i, type))).toEqual([]);
        // The same values as rows of a packed table: one column and an odd k, so that rows are padded as well.
        const table = keep.matrix(packMatrix([{ source, offset: 0, type, rows: PATTERNS }], 1));
        const rows = keep.tensor(
          embed(
            table,
            Int32Array.from({ length: PATTERNS }, (_, i) => i),
          ),
        );
        expect(differing(floats(rows), (i) => numberOf(i, type))).toEqual([]);
      }),
    );
  });

  test.each(['bf16', 'f16'] as const)('every normal %s value is multiplied exactly', (type) => {
    atLevel(level, () =>
      allPatterns((source) => {
        const w = keep.matrix(packMatrix([{ source, offset: 0, type, rows: PATTERNS }], 1));
        const one = keep.tensor(float32([1], [1, 1]));
        const none = keep.tensor(float32([], [0]));
        const y = keep.tensor(linear(one, w, none));
        const tiny = 2 ** -126; // below it TensorFlow's threads flush to zero
        const wrong = differing(floats(y), (i) => {
          const value = numberOf(i, type);
          return Math.abs(value) < tiny ? 0 : value;
        });
        // Tiles multiply a second plane of activations, zero here, with an infinite weight too: NaN instead of infinity.
        const known =
          level === 'avx512amx' ? /: (-?0 instead of -?0|NaN instead of -?Infinity)$/ : /: -?0 instead of -?0$/;
        expect(wrong.filter((text) => !known.test(text))).toEqual([]);
      }),
    );
  });

  test.each(['bf16', 'f16'] as const)('f32 is packed as %s with ties to even', (type) => {
    const values = hardValues(type);
    const round = type === 'bf16' ? roundToBf16 : roundToF16;
    atLevel(level, () => {
      const table = keep.matrix(packArrays([values], 1, { type }));
      const rows = keep.tensor(
        embed(
          table,
          Int32Array.from({ length: values.length }, (_, i) => i),
        ),
      );
      const expected = (i: number) => {
        const value = values[i] as number;
        return Number.isNaN(value) ? Number.NaN : round(value);
      };
      expect(
        differing(floats(rows), expected).map((text) => `${text}, from ${values[Number.parseInt(text, 10)]}`),
      ).toEqual([]);
    });
  });
});

/** Values on, just below and just above every kind of border, NaNs with payloads, and random bit patterns. */
function hardValues(type: Half): Float32Array {
  const words: number[] = [];
  const next = random(`hard ${type}`);
  for (let pattern = 0; pattern < 0x8000; pattern += 7) {
    const low = numberOf(pattern, type);
    const high = numberOf(pattern + 1, type);
    if (!Number.isFinite(low) || !Number.isFinite(high)) continue;
    const [middle = 0] = wordsOf(Float32Array.of((low + high) / 2));
    words.push(middle - 1, middle, middle + 1, ...wordsOf(Float32Array.of(low, high)));
  }
  const largest = type === 'bf16' ? 0x7f7f8000 : 0x477ff000; // the border to infinity
  words.push(largest - 1, largest, largest + 1, 0x7f800000, 0x7f800001, 0x7fc00000, 0x7fffffff, 0, 1, 0x007fffff);
  words.push(0x33000000, 0x33000001, 0x32ffffff, 0x387fe000, 0x387fefff, 0x387ff000); // around the smallest f16 values
  const signed = words.flatMap((word) => [word, (word | 0x80000000) >>> 0]);
  for (let i = 0; i < 20011; i++) signed.push(Math.floor(next() * 2 ** 32));
  const bits = Uint32Array.from(signed);
  return new Float32Array(bits.buffer);
}

test('roundToBf16 and roundToF16, which references use, agree with their definitions', () => {
  for (const [type, round] of [
    ['bf16', roundToBf16],
    ['f16', roundToF16],
  ] as const) {
    const values = hardValues(type).filter((value) => Number.isFinite(round(value)));
    const wrong = [...values].filter((value) => {
      const near = round(value);
      const [word = 0] = wordsOf(Float32Array.of(near));
      const step = type === 'bf16' ? 2 ** 16 : 2 ** 13;
      // No neighbor is nearer, and of two equally near numbers the even one is taken.
      const neighbors = [word - step, word + step].map((bits) => new Float32Array(Uint32Array.of(bits).buffer)[0] ?? 0);
      const error = Math.abs(near - value);
      return neighbors.some((other) => round(other) === other && Math.abs(other - value) < error);
    });
    expect(wrong).toEqual([]);
  }
});
