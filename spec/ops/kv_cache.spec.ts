// Appends write their rows and no other; what attention returns besides its output is a mean of probabilities.

import { gatheredSparseAttention } from '../../src/ops/attention';
import { appendKv, keepKvRows, readKv } from '../../src/ops/kv_cache';
import { float32, floats, int32 } from '../../src/ops/run';
import type { Tensor } from '../../src/runtime/tensor';
import { keeper } from '../../testing/ops/cases/case';
import { noise } from '../../testing/ops/cases/data';
import { filledCache } from '../../testing/ops/cases/kv_cache';
import { nmse, within } from '../../testing/ops/tolerance';
import { atLevel, bitsOf, expectSameBits, levels } from './levels';

const keep = keeper();
afterAll(() => keep.dispose());

const [CAPACITY, KV_HEADS, C] = [37, 3, 41];

describe.each(levels())('at %s', (level) => {
  test.each(['f32', 'bf16'] as const)('an append to a %s cache changes no other row', (type) => {
    const old = noise('old rows', CAPACITY * KV_HEADS * C);
    const fresh = (name: string, t: number) => float32(noise(name, t * KV_HEADS * C), [t, KV_HEADS, C]);
    for (const [at, t] of [
      [0, 1],
      [36, 1],
      [5, 17],
      [0, 37],
    ] as const)
      atLevel(level, () => {
        const kv = filledCache(old, old, { kvHeads: KV_HEADS, c: C, type });
        const before = bitsOf([readKv(kv, 0, CAPACITY, C)])[0] ?? new Uint32Array();
        const [k, v] = [fresh('new k', t), fresh('new v', t)];
        appendKv(kv, k, v, at);
        const written = bitsOf([readKv(kv, at, at + t, C)])[0] ?? new Uint32Array();
        const after = bitsOf([readKv(kv, 0, CAPACITY, C)])[0] ?? new Uint32Array();
        for (const tensor of [kv, k, v]) tensor.dispose();
        const expected = before.slice();
        for (let half = 0; half < 2 * KV_HEADS; half++)
          expected.set(written.subarray(half * t * C, (half + 1) * t * C), (half * CAPACITY + at) * C);
        expectSameBits([after], [expected], `rows ${at} to ${at + t - 1}`, 'a stride of head or row (kv_write).', C);
        expect(written).not.toEqual(before.subarray(0, written.length));
      });
  });

  test('column means sum to 1 and are zero for no row that is seen', () => {
    const length = 301;
    const values = noise('means', length * KV_HEADS * C);
    const kv = keep.tensor(filledCache(values, values, { kvHeads: KV_HEADS, c: C, type: 'bf16' }));
    for (const t of [1, 2, 33, 130])
      atLevel(level, () => {
        const q = keep.tensor(float32(noise('means q', t * 2 * KV_HEADS * C), [t, 2 * KV_HEADS, C]));
        const rows = keep.tensor(int32([0, 3, 100]));
        const { out, columns } = gatheredSparseAttention(q, kv, rows, { tail: 150, length, columns: true });
        out.dispose();
        const means = floats(columns);
        columns.dispose();
        expect(means.length).toBe(3 + length - 150);
        expect(means.every((mean) => mean > 0)).toBe(true);
        expect(within(nmse([means.reduce((a, b) => a + b, 0)], [1]), 'f32')).toBe(true);
      });
  });
});

test.each(['f32', 'bf16'] as const)('rows that are kept of a %s cache move together, those before stay', (type) => {
  const [k, v] = ['k', 'v'].map((name) => noise(`kept ${name}`, CAPACITY * KV_HEADS * C)) as [
    Float32Array,
    Float32Array,
  ];
  const kv = keep.tensor(filledCache(k, v, { kvHeads: KV_HEADS, c: C, type }));
  const row = (at: number): readonly Uint32Array[] => bitsOf([readKv(kv, at, at + 1, C)]);
  const before = Array.from({ length: CAPACITY }, (_, at) => row(at));
  keepKvRows(kv, { begin: 4, end: 31, c: C }, Int32Array.of(0, 3, 4, 20, 26));
  const expected = [0, 1, 2, 3, 4, 7, 8, 24, 30].map((at) => before[at]);
  expect(expected.map((_, at) => row(at))).toEqual(expected);
});

test('two caches do not share rows', () => {
  const [a, b] = [1, 2].map((seed) => {
    const values = noise(`cache ${seed}`, CAPACITY * KV_HEADS * C);
    return keep.tensor(filledCache(values, values, { kvHeads: KV_HEADS, c: C, type: 'f32' }));
  }) as [Tensor, Tensor];
  const before = bitsOf([readKv(a, 0, CAPACITY, C)]);
  const row = keep.tensor(float32(noise('row', KV_HEADS * C), [1, KV_HEADS, C]));
  appendKv(b, row, row, 4);
  expectSameBits(bitsOf([readKv(a, 0, CAPACITY, C)]), before, 'the other cache', 'TensorFlow shares a buffer.');
});
