// Cached equals full: rows computed together, one by one, or split anywhere give the same bits, in the outputs and in the
// cache; so does attention whether its work is split over threads by head or by chunk of rows.

import { attention, gatheredSparseAttention } from '../../src/ops/attention';
import { decoderLayer } from '../../src/ops/decoder_layer';
import { readKv } from '../../src/ops/kv_cache';
import { linear } from '../../src/ops/linear';
import { ropeTable } from '../../src/ops/rope';
import { float32, floats, int32 } from '../../src/ops/run';
import { packArrays } from '../../src/ops/weights';
import type { Tensor } from '../../src/runtime/tensor';
import { keeper } from '../../testing/ops/cases/case';
import { noise } from '../../testing/ops/cases/data';
import {
  type DecoderLayerSizes,
  decoderLayerData,
  decoderLayerWeights,
  GEMMA_LIKE,
  SMALL_LAYER,
  weightTensors,
} from '../../testing/ops/cases/decoder_layer';
import { filledCache } from '../../testing/ops/cases/kv_cache';
import { inverseFrequencies } from '../../testing/ops/cases/rope';
import { packer, storedValues } from '../../testing/ops/cases/stored';
import { atLevel, bitsOf, expectSameBits, levels, withThreads, wordsOf } from './levels';

const keep = keeper();
afterAll(() => keep.dispose());

/** The outputs of several calls, one after another, as the bits of one. */
const joined = (parts: readonly Uint32Array[]): Uint32Array => Uint32Array.from(parts.flatMap((part) => [...part]));

describe.each(levels())('at %s', (level) => {
  test.each([
    { type: 'f32', dot: false },
    { type: 'f16', dot: false },
    { type: 'bf16', dot: false },
    { type: 'bf16', dot: true },
    { type: 'int4', dot: false },
    { type: 'int4 fast', dot: false },
    { type: 'int8', dot: false },
  ] as const)('linear: rows together and one by one, $type (dot $dot)', ({ type, dot }) => {
    const [t, k, n] = [101, 2055, 131];
    const x = noise('splits x', t * k);
    const w = packer([storedValues('splits w', n, k, type)], k, type, { roundActivations: dot })();
    const bias = float32(noise('splits bias', n), [n]);
    const call = (from: number, to: number) => {
      const part = float32(x.subarray(from * k, to * k), [to - from, k]);
      const bits = bitsOf([linear(part, w, bias, 'silu')]);
      part.dispose();
      return bits[0] ?? new Uint32Array();
    };
    atLevel(level, () => {
      const together = call(0, t);
      const oneByOne = joined(Array.from({ length: t }, (_, i) => call(i, i + 1)));
      const cause = 'the chain over k differs between tiles of different heights (matmul.inl), or a padded k.';
      expectSameBits([oneByOne], [together], 'row by row', cause, n);
      expectSameBits([joined([call(0, 13), call(13, t)])], [together], 'split at 13', cause, n);
    });
    w.tensor.dispose();
    bias.dispose();
  });

  test('attention: queries together and one by one', () => {
    const [t, n, heads, kvHeads, c] = [29, 301, 6, 2, 72];
    const [k, v] = ['k', 'v'].map((name) => noise(`splits ${name}`, n * kvHeads * c)) as [Float32Array, Float32Array];
    const q = noise('splits q', t * heads * c);
    const call = (from: number, to: number) => {
      const seen = n - t + to;
      const tensors = [
        float32(q.subarray(from * heads * c, to * heads * c), [to - from, heads, c]),
        ...[k, v].map((x) => float32(x.subarray(0, seen * kvHeads * c), [seen, kvHeads, c])),
      ] as [Tensor, Tensor, Tensor];
      const { out, columns } = attention(...tensors, { causal: true });
      for (const tensor of [...tensors, columns]) tensor.dispose();
      return bitsOf([out])[0] ?? new Uint32Array();
    };
    atLevel(level, () =>
      expectSameBits(
        [joined(Array.from({ length: t }, (_, i) => call(i, i + 1)))],
        [call(0, t)],
        'query by query',
        'chunks of rows that start elsewhere, or a masked row that leaves a trace (attention.inl).',
        heads * c,
      ),
    );
  });

  test('attention within spans: queries together and one by one; causal as spans', () => {
    const [t, n, heads, kvHeads, c] = [61, 361, 6, 2, 72];
    const [k, v] = ['k', 'v'].map((name) =>
      keep.tensor(float32(noise(`spans ${name}`, n * kvHeads * c), [n, kvHeads, c])),
    ) as [Tensor, Tensor];
    const q = noise('spans q', t * heads * c);
    const call = (from: number, to: number, options: { causal?: boolean; spans?: number[] }) => {
      const part = float32(q.subarray(from * heads * c, to * heads * c), [to - from, heads, c]);
      const spans = options.spans && int32(options.spans.slice(2 * from, 2 * to), [to - from, 2]);
      const { out, columns } = attention(part, k, v, { causal: options.causal ?? false, spans });
      for (const tensor of [part, columns, ...(spans ? [spans] : [])]) tensor.dispose();
      return bitsOf([out])[0] ?? new Uint32Array();
    };
    const mask = (span: (i: number) => number[]) => Array.from({ length: t }, (_, i) => span(i)).flat();
    const masks = {
      sliding: mask((i) => [n - t + i - 100, n - t + i + 1]),
      windows: mask((i) => [i - (i % 7), i - (i % 7) + 150]),
      causal: mask((i) => [0, n - t + i + 1]),
    };
    atLevel(level, () => {
      for (const [name, spans] of Object.entries(masks)) {
        const alone = Array.from({ length: t }, (_, i) => call(i, i + 1, { spans }));
        const cause = 'chunks that begin elsewhere, or a row outside a span that leaves a trace (attention.cc).';
        expectSameBits([joined(alone)], [call(0, t, { spans })], name, cause, heads * c);
      }
      const causal = call(0, t, { causal: true });
      expectSameBits([call(0, t, { spans: masks.causal })], [causal], 'causal as spans', 'other limits.', heads * c);
    });
  });

  test.each([
    { name: 'dense', sizes: { ...SMALL_LAYER, t: 13, length: 120, tail: 0, listed: 0 } },
    { name: 'over a view', sizes: { ...SMALL_LAYER, t: 13 } },
    { name: 'with 16-bit weights and cache', sizes: { ...SMALL_LAYER, t: 13, type: 'bf16', kvType: 'bf16' } },
    { name: 'with 4-bit weights', sizes: { ...SMALL_LAYER, t: 13, type: 'int4' } },
    { name: 'with 4-bit weights, fast', sizes: { ...SMALL_LAYER, t: 13, type: 'int4 fast', kvType: 'bf16' } },
    { name: 'with norms of heads and after', sizes: GEMMA_LIKE },
    { name: 'with rounded activations', sizes: { ...SMALL_LAYER, t: 13, type: 'bf16', kvType: 'bf16', dot: true } },
  ] as const)('decoderLayer $name: cached equals full at every split', ({ sizes }) => {
    atLevel(level, () => {
      const layer = layerIn(sizes);
      const full = layer([0, sizes.t]);
      for (let s = 1; s < sizes.t; s++)
        expectSameBits(
          layer([0, s, sizes.t]),
          full,
          `split at ${s}`,
          'a product, an attention chunk or a rotation that depends on how many rows come together; or rows are written to ' +
            'the cache at the wrong place (output 1 is the cache).',
          sizes.d,
        );
    });
  });
});

/** Runs a layer over consecutive parts of x, on a fresh cache: the bits of all rows of y, and of the whole cache. */
function layerIn(sizes: DecoderLayerSizes): (borders: readonly number[]) => Uint32Array[] {
  const { t, d, c, kvHeads, length, tail } = sizes;
  const data = decoderLayerData(sizes);
  const weights = decoderLayerWeights(data, sizes);
  for (const tensor of weightTensors(weights)) keep.tensor(tensor);
  const rows = keep.tensor(int32(data.rows));
  const part = (kv: Tensor, from: number, to: number) => {
    const x = float32(data.x.subarray(from * d, to * d), [to - from, d]);
    const table = ropeTable(data.positions.slice(from, to), inverseFrequencies(c));
    const range = int32([tail, length + from, 0]);
    const [y, columns] = decoderLayer(x, kv, table, rows, range, weights);
    const bits = bitsOf([y])[0] ?? new Uint32Array();
    for (const tensor of [x, table, range, columns]) tensor.dispose();
    return bits;
  };
  return (borders) => {
    const kv = filledCache(data.k, data.v, { kvHeads, c, type: sizes.kvType, spare: t });
    const y = joined(borders.slice(1).map((to, i) => part(kv, borders[i] ?? 0, to)));
    const cache = bitsOf([readKv(kv, 0, length + t, c)]);
    kv.dispose();
    return [y, ...cache];
  };
}

describe('attention split by chunk of rows equals attention split by head', () => {
  // Two kv heads: one thread takes whole heads, five take chunks (fewer items than twice the threads).
  const [length, heads, kvHeads, c] = [1027, 14, 2, 72];
  test.each(['f32', 'bf16'] as const)('decode over a %s cache', (type) => {
    const [k, v] = ['k', 'v'].map((name) => noise(`few heads ${name}`, length * kvHeads * c)) as [
      Float32Array,
      Float32Array,
    ];
    const kv = keep.tensor(filledCache(k, v, { kvHeads, c, type }));
    const q = keep.tensor(float32(noise('few heads q', heads * c), [1, heads, c]));
    const rows = keep.tensor(int32(Array.from({ length: 400 }, (_, i) => 2 * i)));
    for (const columns of [false, true]) {
      const call = () => {
        const result = gatheredSparseAttention(q, kv, rows, { tail: 900, length, columns });
        return bitsOf([result.out, result.columns]);
      };
      const whole = withThreads(1, call);
      for (const count of [2, 3, 5])
        expectSameBits(
          withThreads(count, call),
          whole,
          `${count} threads${columns ? ' with columns' : ''}`,
          'partials that are merged in another order, or a chunk that is computed with other borders (attention.cc).',
        );
    }
  });
});

test('subnormal numbers give equal results on every thread', () => {
  // TensorFlow may flush subnormals to zero on its own threads, and the pool's threads do not.
  const [t, k, n] = [7, 131, 259];
  const x = keep.tensor(float32(noise('tiny x', t * k, 1e-20), [t, k]));
  const w = keep.matrix(packArrays([noise('tiny w', n * k, 1e-20)], k));
  const none = keep.tensor(float32([], [0]));
  const call = () => bitsOf([linear(x, w, none)]);
  const one = withThreads(1, call);
  expect(new Float32Array((one[0] ?? new Uint32Array()).buffer).every((value) => Math.abs(value) < 2 ** -120)).toBe(
    true,
  );
  expectSameBits(withThreads(5, call), one, '5 threads', 'the flush-to-zero mode differs between threads (MXCSR).');
  expect(wordsOf(floats(x)).some((word) => word !== 0)).toBe(true);
});
