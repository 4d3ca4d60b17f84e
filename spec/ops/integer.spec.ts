// Products with 4-bit and 8-bit matrices beside the case table: weights are held exactly, activations of any size are rounded
// without NaN, infinity or a wrapped integer, and gated and stacked matrices equal their parts bit for bit.

import { gatedMlp, linear } from '../../src/ops/linear';
import { float32, floats } from '../../src/ops/run';
import { dequantize, type PackedMatrix } from '../../src/ops/weights';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import { keeper } from '../../testing/ops/cases/case';
import { noise } from '../../testing/ops/cases/data';
import {
  INT4_GRID,
  type Int4Grid,
  packer,
  type StoredType,
  storedValues,
  toleranceOf,
} from '../../testing/ops/cases/stored';
import { linearReference } from '../../testing/ops/references/linear';
import { nmse, TOLERANCES } from '../../testing/ops/tolerance';
import { atLevel, bitsOf, expectSameBits, levels } from './levels';

const keep = keeper();
afterAll(() => keep.dispose());

const TYPES: readonly StoredType[] = ['int4', 'int4 fast', 'int8'];
const NONE = keep.tensor(float32([], [0]));

function values(tensor: Tensor): Float32Array {
  const copy = floats(tensor).slice();
  tensor.dispose();
  return copy;
}

function product(x: Float32Array, k: number, w: PackedMatrix): Float32Array {
  const input = float32(x, [x.length / k, k]);
  const y = values(linear(input, w, NONE));
  input.dispose();
  return y;
}

describe('a packed matrix holds its input values', () => {
  const grids: readonly Partial<Int4Grid>[] = [
    {},
    { group: 32, stored: 32, scales: 'bf16' },
    { group: 64, stored: 32, zeros: 'none' },
    { group: 128, stored: 128, zeros: 'scaled' },
    { group: 64, stored: 64, zeros: 'scaled', scales: 'bf16' },
  ];
  test.each(grids)('4 bits, %j', (change) => {
    const grid = { ...INT4_GRID, ...change };
    const w = storedValues('held', 84, 384, 'int4', grid);
    const packed = keep.matrix(packer([w], 384, 'int4', { grid })());
    expect(values(dequantize(packed))).toEqual(w);
  });

  test('8 bits', () => {
    const w = storedValues('held', 83, 131, 'int8');
    expect(values(dequantize(keep.matrix(packer([w], 131, 'int8')())))).toEqual(w);
  });
});

describe.each(levels())('at %s', (level) => {
  describe.each(TYPES)('%s', (type) => {
    const [k, n] = [203, 83];
    const w = storedValues('sizes w', n, k, type);
    const packed = keep.matrix(packer([w], k, type)());

    test('rows of zeros give zeros and do not affect other rows', () => {
      const x = noise('zero rows', 5 * k);
      x.fill(0, k, 3 * k);
      x.fill(-0, 4 * k, 4 * k + 64); // one group only
      const y = atLevel(level, () => product(x, k, packed));
      expect(y.subarray(n, 3 * n).every((value) => value === 0)).toBe(true);
      expect(nmse(y, linearReference(x, w, k))).toBeLessThan(TOLERANCES[toleranceOf(type)]);
    });

    test.each([1e-30, 1e-20, 1e20, 1e30])('activations of size %d', (size) => {
      const x = noise('sized x', 5 * k).map((value) => value * size);
      const error = nmse(
        atLevel(level, () => product(x, k, packed)).map((value) => value / size),
        linearReference(x, w, k).map((value) => value / size),
      );
      expect(error).toBeLessThanOrEqual(TOLERANCES[toleranceOf(type)]);
    });

    // Steps of 1e-36 and less count as 0, and TensorFlow's threads flush what is below 2^-126.
    test.each([1e-33, 1e-34, 1e-35, 1e-36, 1e-37, 1e-38, 1e-40, 1e-45, 1e35])(
      'activations of size %d lead to outputs of no larger size',
      (size) => {
        const x = noise('border x', 5 * k).map((value) => Math.min(1, Math.max(-1, value)) * size);
        const y = atLevel(level, () => product(x, k, packed));
        const expected = linearReference(x, w, k);
        const most = expected.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
        const wrong = y.findIndex((value) => !(Math.abs(value) <= 1.05 * most + 2 ** -126));
        expect([wrong, y[wrong], most]).toEqual([-1, undefined, most]);
      },
    );

    test('an infinite activation gives no finite output in its row', () => {
      const x = noise('infinite x', 3 * k);
      x[k + 7] = Number.NEGATIVE_INFINITY;
      const y = atLevel(level, () => product(x, k, packed));
      expect(y.findIndex((value, i) => Number.isFinite(value) === (Math.floor(i / n) === 1))).toBe(-1);
    });

    test('stacked matrices equal single ones', () => {
      const parts = [64, 16, 35].map((rows) => storedValues(`stacked ${rows}`, rows, k, type));
      const x = noise('stacked x', 7 * k);
      const all = keep.matrix(packer(parts, k, type)());
      atLevel(level, () => {
        const y = product(x, k, all);
        const singles = parts.map((part) => product(x, k, keep.matrix(packer([part], k, type)())));
        const joined = Array.from({ length: 7 }, (_, row) =>
          singles.flatMap((single, i) => {
            const rows = (parts[i]?.length ?? 0) / k;
            return [...single.subarray(row * rows, (row + 1) * rows)];
          }),
        ).flat();
        expect([...y]).toEqual(joined);
      });
    });
  });

  test.each(['int4', 'int4 fast'] as const)('gatedMlp of %s equals its parts', (type) => {
    const { tf } = start();
    const [t, d, m] = [5, 131, 83];
    const [gate, up, down] = [
      storedValues('gate', m, d, type),
      storedValues('up', m, d, type),
      storedValues('down', d, m, type),
    ];
    const single = (matrix: Float32Array, k: number) => keep.matrix(packer([matrix], k, type)());
    const gateUp = keep.matrix(packer([gate, up], d, type, { gated: true })());
    const [g, u, last] = [single(gate, d), single(up, d), single(down, m)];
    const x = keep.tensor(float32(noise('gated x', t * d), [t, d]));
    atLevel(level, () => {
      const fused = bitsOf([gatedMlp(x, gateUp, last)]);
      const composed = tf.tidy(() => linear(tf.mul(linear(x, g, NONE, 'silu'), linear(x, u, NONE)), last, NONE));
      expectSameBits(fused, bitsOf([composed]), 'gated', 'strips of gate and up that are mixed up.', d);
    });
  });
});
