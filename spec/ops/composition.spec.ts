// The fused ops equal the composition of the small ones bit for bit, and attention through an index equals dense attention
// when the index leaves nothing out.

import { type AttentionResult, attention, gatheredSparseAttention } from '../../src/ops/attention';
import { keeper } from '../../src/ops/cases/case';
import { noise } from '../../src/ops/cases/data';
import {
  type DecoderLayerSizes,
  decoderLayerData,
  decoderLayerWeights,
  SMALL_LAYER,
  weightTensors,
} from '../../src/ops/cases/decoder_layer';
import { filledCache } from '../../src/ops/cases/kv_cache';
import { inverseFrequencies } from '../../src/ops/cases/rope';
import {
  SMALL_BLOCK,
  type VisionBlockSizes,
  visionBlockData,
  visionBlockWeights,
} from '../../src/ops/cases/vision_block';
import { decoderLayer, decoderLayers } from '../../src/ops/decoder_layer';
import { appendKv, readKv } from '../../src/ops/kv_cache';
import { gatedMlp, linear } from '../../src/ops/linear';
import { layerNorm, rmsNorm } from '../../src/ops/norm';
import { rope, ropeTable } from '../../src/ops/rope';
import { float32, int32 } from '../../src/ops/run';
import { visionBlock } from '../../src/ops/vision_block';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import { atLevel, bitsOf, expectSameBits, levels } from './levels';

const keep = keeper();
afterAll(() => keep.dispose());

/** Columns from .. to - 1 of x [t, .] as [t, heads, c]. */
function headsOf(x: Tensor, from: number, heads: number, c: number): Tensor {
  const { tf } = start();
  const t = x.shape[0] ?? 0;
  return tf.reshape(tf.slice(x as ReturnType<typeof tf.tensor2d>, [0, from], [t, heads * c]), [t, heads, c]);
}

/** `body` in a tidy that keeps the outputs only. */
function tidy(body: () => Tensor[]): Tensor[] {
  return start().tf.tidy(body);
}

describe.each(levels())('at %s', (level) => {
  test.each([
    { name: 'f32 over a view', sizes: SMALL_LAYER },
    { name: 'f16 weights, one row', sizes: { ...SMALL_LAYER, type: 'f16', t: 1 } },
    { name: 'bf16 weights and cache', sizes: { ...SMALL_LAYER, type: 'bf16', kvType: 'bf16' } },
    { name: 'rounded activations', sizes: { ...SMALL_LAYER, type: 'bf16', kvType: 'bf16', dot: true } },
    { name: '4-bit weights', sizes: { ...SMALL_LAYER, type: 'int4' } },
    { name: '4-bit weights, fast', sizes: { ...SMALL_LAYER, type: 'int4 fast', kvType: 'bf16' } },
    { name: 'no bias, empty cache', sizes: { ...SMALL_LAYER, bias: false, length: 0, tail: 0, listed: 0 } },
  ] as const)('decoderLayer equals its parts: $name', ({ sizes }) => {
    atLevel(level, () => {
      const { fused, composed } = decoderBothWays(sizes);
      expectSameBits(
        fused,
        composed,
        'fused against composed (outputs: y, columns, cache)',
        'an epilogue that adds in another order than the small ops, or padding that reaches a sum (decoder_layer.cc).',
        sizes.d,
      );
    });
  });

  test.each([1, 6])('decoderLayers equals one layer after another: %i rows', (t) => {
    atLevel(level, () => {
      const { together, apart } = layersBothWays(t);
      expectSameBits(together, apart, 'in one call against one by one (outputs: y, caches)', 'buffers between layers.');
    });
  });

  test.each([
    { name: 'f32', sizes: SMALL_BLOCK },
    {
      name: 'bf16, odd heads',
      sizes: { ...SMALL_BLOCK, n: 131, e: 54, heads: 3, type: 'bf16', activation: 'quick_gelu' },
    },
    { name: '8-bit weights', sizes: { ...SMALL_BLOCK, type: 'int8' } },
    { name: 'rounded activations', sizes: { ...SMALL_BLOCK, type: 'bf16', dot: true, activation: 'gelu' } },
  ] as const)('visionBlock equals its parts: $name', ({ sizes }) => {
    atLevel(level, () => {
      const { fused, columnsOnly, composed } = visionBothWays(sizes);
      const cause = 'an epilogue that adds in another order than the small ops, or padding that reaches a sum.';
      expectSameBits(fused, composed, 'fused against composed (outputs: y, columns)', cause, sizes.e);
      expectSameBits(
        columnsOnly,
        composed.slice(1),
        'columns only',
        'scores_only differs from attend_chunk, or strips.',
      );
    });
  });

  test.each(['f32', 'bf16'] as const)('attention over all rows of a %s cache by index equals dense', (type) => {
    const [t, length, heads, kvHeads, c] = [9, 301, 14, 2, 40];
    const [k, v] = ['k', 'v'].map((name) => noise(`all rows ${name}`, length * kvHeads * c)) as [
      Float32Array,
      Float32Array,
    ];
    const kv = keep.tensor(filledCache(k, v, { kvHeads, c, type }));
    const q = keep.tensor(float32(noise('all rows q', t * heads * c), [t, heads, c]));
    const view = (tail: number): Uint32Array[] => {
      const rows = int32(Array.from({ length: tail }, (_, i) => i));
      const result = gatheredSparseAttention(q, kv, rows, { tail, length, columns: true });
      rows.dispose();
      return bitsOf([result.out, result.columns]);
    };
    atLevel(level, () => {
      const dense = view(0);
      const cause = 'chunk borders that depend on where the list ends and the tail begins (row_at in attention.inl).';
      for (const tail of [1, 100, 128, 129, length - t]) expectSameBits(view(tail), dense, `tail at ${tail}`, cause);
      const plain = plainAttention(q, kv, length, c);
      expectSameBits(bitsOf([plain.out, plain.columns]), dense, 'plain tensors', 'the two attention shells disagree.');
    });
  });
});

/** The attention op over plain tensors that hold what the cache holds. */
function plainAttention(q: Tensor, kv: Tensor, length: number, c: number): AttentionResult {
  const { tf } = start();
  const rows = readKv(kv, 0, length, c);
  const [k, v] = [0, 1].map((half) =>
    tf.tidy(() => tf.transpose(tf.squeeze(tf.slice(rows, [half, 0, 0, 0], [1, -1, -1, -1]), [0]), [1, 0, 2])),
  ) as [Tensor, Tensor];
  const result = attention(q, k, v, { causal: true, columns: true });
  for (const tensor of [rows, k, v]) tensor.dispose();
  return result;
}

function decoderBothWays(s: DecoderLayerSizes): { fused: Uint32Array[]; composed: Uint32Array[] } {
  const { tf } = start();
  const data = decoderLayerData(s);
  const w = decoderLayerWeights(data, s);
  for (const tensor of weightTensors(w)) keep.tensor(tensor);
  const x = keep.tensor(float32(data.x, [s.t, s.d]));
  const rows = keep.tensor(int32(data.rows));
  const table = keep.tensor(ropeTable(data.positions, inverseFrequencies(s.c)));
  const range = keep.tensor(int32([s.tail, s.length, 1]));
  const cache = () =>
    keep.tensor(filledCache(data.k, data.v, { kvHeads: s.kvHeads, c: s.c, type: s.kvType, spare: s.t }));
  const read = (kv: Tensor) => readKv(kv, 0, s.length + s.t, s.c);

  const fusedKv = cache();
  const fused = bitsOf([...decoderLayer(x, fusedKv, table, rows, range, w), read(fusedKv)]);

  const kv = cache();
  const composed = tidy(() => {
    const qkv = linear(rmsNorm(x, w.inputNorm, w.eps), w.qkv, w.qkvBias);
    const q = rope(headsOf(qkv, 0, s.heads, s.c), table);
    const k = rope(headsOf(qkv, s.heads * s.c, s.kvHeads, s.c), table);
    appendKv(kv, k, headsOf(qkv, (s.heads + s.kvHeads) * s.c, s.kvHeads, s.c), s.length);
    const view = { tail: s.tail, length: s.length + s.t, columns: true };
    const attended = gatheredSparseAttention(q, kv, rows, view);
    const h = tf.add(linear(tf.reshape(attended.out, [s.t, s.heads * s.c]), w.o, w.oBias), x);
    const y = tf.add(gatedMlp(rmsNorm(h, w.postNorm, w.eps), w.gateUp, w.down), h);
    return [y, attended.columns, read(kv)];
  });
  return { fused, composed: bitsOf(composed) };
}

/** Four layers that differ in their weights, in what is in their caches and in what they attend. */
function layersBothWays(t: number): { together: Uint32Array[]; apart: Uint32Array[] } {
  const sizes = (['f32', 'bf16', 'int4', 'f16'] as const).map(
    (type, i): DecoderLayerSizes => ({ ...SMALL_LAYER, type, t, length: 140 + i, tail: 120 + 3 * i, listed: 30 + i }),
  );
  const parts = sizes.map((s) => {
    const data = decoderLayerData(s);
    const weights = decoderLayerWeights(data, s);
    for (const tensor of weightTensors(weights)) keep.tensor(tensor);
    const rows = keep.tensor(int32(data.rows));
    const range = keep.tensor(int32([s.tail, s.length, 0]));
    const cache = () =>
      keep.tensor(filledCache(data.k, data.v, { kvHeads: s.kvHeads, c: s.c, type: s.kvType, spare: t }));
    return { s, weights, rows, range, cache };
  });
  const { d, c } = SMALL_LAYER;
  const x = keep.tensor(float32(noise('layers x', t * d), [t, d]));
  const table = keep.tensor(
    ropeTable(
      Array.from({ length: t }, (_, i) => 150 + i),
      inverseFrequencies(c),
    ),
  );
  const caches = () =>
    parts.map(({ s, cache }) => ({ kv: cache(), read: (kv: Tensor) => readKv(kv, 0, s.length + t, c) }));
  const [one, other] = [caches(), caches()];
  const kvOf = (set: typeof one, i: number): Tensor => set[i]?.kv as Tensor;
  const y = decoderLayers(
    x,
    table,
    parts.map(({ weights, rows, range }, i) => ({ weights, rows, range, kv: kvOf(one, i) })),
  );
  let h = x;
  for (const [i, { weights, rows, range }] of parts.entries())
    h = keep.tensor(decoderLayer(h, kvOf(other, i), table, rows, range, weights)[0]);
  const bits = (last: Tensor, set: typeof one) => bitsOf([last, ...set.map(({ kv, read }) => read(kv))]);
  return { together: bits(y, one), apart: bits(h.clone(), other) };
}

function visionBothWays(s: VisionBlockSizes) {
  const { tf } = start();
  const data = visionBlockData(s);
  const w = visionBlockWeights(data, s, keep);
  const x = keep.tensor(float32(data.x, [s.n, s.e]));
  const fused = bitsOf(visionBlock(x, w, { features: true, columns: true }));
  const only = visionBlock(x, w, { features: false, columns: true });
  const composed = tidy(() => {
    const qkv = linear(layerNorm(x, w.norm1, w.norm1Bias, w.eps), w.qkv, w.qkvBias);
    const [q, k, v] = [0, 1, 2].map((part) => headsOf(qkv, part * s.e, s.heads, s.e / s.heads)) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const attended = attention(q, k, v, { columns: true });
    const h = tf.add(linear(tf.reshape(attended.out, [s.n, s.e]), w.out, w.outBias), x);
    const hidden = linear(layerNorm(h, w.norm2, w.norm2Bias, w.eps), w.fc1, w.fc1Bias, s.activation);
    return [tf.add(linear(hidden, w.fc2, w.fc2Bias), h), attended.columns];
  });
  only[0].dispose();
  return { fused, columnsOnly: bitsOf([only[1]]), composed: bitsOf(composed) };
}
