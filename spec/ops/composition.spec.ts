// The fused decoder layers equal the composition of models/blocks.ts bit for bit, and attention through an index equals dense attention
// if the index contains all rows.

import type { BlockOps } from '../../src/models/blocks';
import type { DecoderConfig } from '../../src/models/config';
import { decoderBlock } from '../../src/models/decoder_blocks';
import { type AttentionResult, attention as attentionOp, gatheredSparseAttention } from '../../src/ops/attention';
import { decoderLayer, decoderLayers } from '../../src/ops/decoder_layer';
import { appendKv, readKv } from '../../src/ops/kv_cache';
import { rmsNorm } from '../../src/ops/norm';
import { rope, ropeTable } from '../../src/ops/rope';
import { float32, int32 } from '../../src/ops/run';
import { start } from '../../src/runtime/start';
import type { Tensor } from '../../src/runtime/tensor';
import { keeper } from '../../testing/ops/cases/case';
import { noise } from '../../testing/ops/cases/data';
import {
  type DecoderLayerSizes,
  decoderLayerData,
  decoderLayerWeights,
  SMALL_LAYER,
  weightTensors,
} from '../../testing/ops/cases/decoder_layer';
import { filledCache } from '../../testing/ops/cases/kv_cache';
import { inverseFrequencies } from '../../testing/ops/cases/rope';
import { attention, opsOf, stacked, tidy } from './composed';
import { atLevel, bitsOf, expectSameBits, levels } from './levels';

const keep = keeper();
afterAll(() => keep.dispose());

describe.each(levels())('at %s', (level) => {
  test.each([
    { name: 'f32 over a view', sizes: SMALL_LAYER },
    { name: 'f16 weights, one row', sizes: { ...SMALL_LAYER, type: 'f16', t: 1 } },
    { name: 'bf16 weights and cache', sizes: { ...SMALL_LAYER, type: 'bf16', kvType: 'bf16' } },
    { name: 'rounded activations', sizes: { ...SMALL_LAYER, type: 'bf16', kvType: 'bf16', dot: true } },
    { name: '4-bit weights', sizes: { ...SMALL_LAYER, type: 'int4' } },
    { name: '4-bit weights, fast', sizes: { ...SMALL_LAYER, type: 'int4 fast', kvType: 'bf16' } },
    { name: 'norms of queries and keys', sizes: { ...SMALL_LAYER, qkNorm: true, bias: false } },
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
  const result = attentionOp(q, k, v, { causal: true, columns: true });
  for (const tensor of [rows, k, v]) tensor.dispose();
  return result;
}

function decoderConfigOf(s: DecoderLayerSizes): DecoderConfig {
  return {
    ...{ hiddenSize: s.d, intermediateSize: s.ffn, layers: 1, heads: s.heads, kvHeads: s.kvHeads, headDim: s.c },
    ...{ vocabSize: 8, ropeTheta: 1e4, ropeScaling: { type: 'default' }, rmsNormEps: 1e-6, maxPositions: 4096 },
    ...{ attentionBias: { qkv: s.bias ?? false, o: s.bias ?? false }, tieWordEmbeddings: true, hiddenAct: 'silu' },
    ...(s.qkNorm && { qkNorm: true }),
  };
}

function decoderBothWays(s: DecoderLayerSizes): { fused: Uint32Array[]; composed: Uint32Array[] } {
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
  let columns: Tensor | undefined;
  const attend: BlockOps['attend'] = (q, k, v) => {
    appendKv(kv, rope(k, table), v, s.length);
    const view = { tail: s.tail, length: s.length + s.t, columns: true };
    const attended = gatheredSparseAttention(rope(q, table), kv, rows, view);
    columns = attended.columns;
    return attended.out;
  };
  const layers = {
    ...stacked(
      ['q', 'k', 'v'].map(attention),
      [s.heads, s.kvHeads, s.kvHeads].map((count) => count * s.c),
      {
        ...{ values: data.qkv, k: s.d, bias: data.qkvBias },
      },
    ),
    [attention('o')]: { values: data.o, k: s.heads * s.c, bias: data.oBias },
    'mlp.gate_proj': { values: data.gate, k: s.d },
    'mlp.up_proj': { values: data.up, k: s.d },
    'mlp.down_proj': { values: data.down, k: s.ffn },
  };
  const vector = (values: Float32Array) => keep.tensor(float32(values, [values.length]));
  const norms = {
    ...{ input_layernorm: vector(data.inputNorm), post_attention_layernorm: vector(data.postNorm) },
    ...{ 'self_attn.q_norm': vector(data.qNorm), 'self_attn.k_norm': vector(data.kNorm) },
  };
  const eps = keep.tensor(float32([1e-6], [1]));
  const ops: BlockOps = {
    ...opsOf(keep, layers, s.type, s.dot),
    norm: (name, input) => rmsNorm(input, norms[name as keyof typeof norms], eps),
    attend,
  };
  const block = decoderBlock(decoderConfigOf(s));
  const composed = tidy(() => [block.run(ops, x), columns as Tensor, read(kv)]);
  return { fused, composed: bitsOf(composed) };
}

/** Four layers that differ in their weights, in what is in their caches and in what they attend. */
function layersBothWays(t: number): { together: Uint32Array[]; apart: Uint32Array[] } {
  const sizes = (['f32', 'bf16', 'int4', 'f16'] as const).map(
    (type, i): DecoderLayerSizes => ({ ...SMALL_LAYER, type, t, length: 140 + i, tail: 120 + 3 * i, listed: 30 + i }),
  );
  const parts = sizes.map((s, i) => {
    const data = decoderLayerData(s);
    const weights = decoderLayerWeights(data, s, i);
    for (const tensor of weightTensors(weights)) keep.tensor(tensor);
    const rows = keep.tensor(int32(data.rows));
    const range = [s.tail, s.length, 0];
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
  const ranges = keep.tensor(int32(parts.flatMap(({ range }) => range)));
  const [y, columns] = decoderLayers(
    x,
    table,
    { segments: keep.tensor(int32([t])), ranges },
    parts.map(({ weights, rows }, i) => ({ weights, sequences: [{ kv: kvOf(one, i), rows }] })),
  );
  columns.dispose();
  let h = x;
  for (const [i, { weights, rows }] of parts.entries())
    h = keep.tensor(decoderLayer(h, kvOf(other, i), table, rows, ranges, weights)[0]);
  const bits = (last: Tensor, set: typeof one) => bitsOf([last, ...set.map(({ kv, read }) => read(kv))]);
  return { together: bits(y, one), apart: bits(h.clone(), other) };
}
