// Queries of rows that enter a decoder layer, and keys of cached rows, before rotary embedding: what is similar in content has similar ones wherever it
// stands. Composed of small ops; the fused layer gives neither. Only for layers that attend all rows, which use the first rotary embedding.

import type { DecoderLayerWeights } from '../ops/decoder_layer';
import { readKv } from '../ops/kv_cache';
import { linear } from '../ops/linear';
import { rmsNorm } from '../ops/norm';
import { rope } from '../ops/rope';
import { floats, noFloat32 } from '../ops/run';
import { paddedLength } from '../ops/vectors';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { DecoderConfig } from './config';

/** The mean over the rows of x, f32 [t, d], of their queries in a layer, with the norm of each head: f32 [heads, c]. */
export function meanQuery(config: DecoderConfig, weights: DecoderLayerWeights, x: Tensor): Float32Array {
  const { tf } = start();
  const { hiddenSize: d, heads, kvHeads, headDim: c, attentionBias, qkNorm = false, attentionGate = false } = config;
  const width = (attentionGate ? 2 : 1) * heads * c;
  const biases = attentionBias.qkv ? width + 2 * kvHeads * c : 0;
  const queries = tf.tidy(() => {
    const { vectors } = weights;
    const part = (at: number, n: number): Tensor => tf.slice(vectors, [at], [n]);
    const eps = epsOf(weights, { d, biases, c: qkNorm ? c : 0, config });
    const bias = biases === 0 ? noFloat32() : part(paddedLength(d), biases);
    const t = x.shape[0] as number;
    const all = linear(rmsNorm(x, part(0, d), eps), weights.qkv, bias);
    const each = tf.reshape(tf.slice(all, [0, 0], [t, width]), [t * heads, width / heads]);
    const own = attentionGate ? tf.slice(each, [0, 0], [t * heads, c]) : each;
    return qkNorm ? rmsNorm(own, part(paddedLength(d) + paddedLength(biases), c), eps) : own;
  });
  try {
    const mean = new Float32Array(heads * c);
    const values = floats(queries);
    const share = mean.length / values.length;
    for (const [i, value] of values.entries())
      mean[i % mean.length] = (mean[i % mean.length] as number) + value * share;
    return mean;
  } finally {
    queries.dispose();
  }
}

/** The eps of a layer's record, which stands after its norms and biases. */
function epsOf(
  { vectors }: DecoderLayerWeights,
  { d, biases, c, config }: { d: number; biases: number; c: number; config: DecoderConfig },
): Tensor {
  const output = config.attentionBias.o ? paddedLength(d) : 0;
  const norms = (config.postNorms ? 4 : 2) * paddedLength(d);
  return start().tf.slice(vectors, [norms + paddedLength(biases) + 2 * paddedLength(c) + output], [1]);
}

/**
 * Keys of the cached rows begin .. end - 1, turned back by their positions: f32 [rows, kvHeads, c]. Exact up to rounding, that of the cache included.
 * @param table f32 [2, rows, c / 2]: `ropeTable` of the negated positions
 */
export function unrotatedKeys(
  { headDim: c, kvHeads, rotaryDim = c }: DecoderConfig,
  kv: Tensor,
  { begin, end }: { readonly begin: number; readonly end: number },
  table: Tensor,
): Float32Array {
  const { tf } = start();
  const turned = tf.tidy(() => {
    const both = readKv(kv, begin, end, c);
    const keys = tf.slice(both, [0, 0, 0, 0], [1, kvHeads, end - begin, c]);
    const byRow = tf.transpose(tf.reshape(keys, [kvHeads, end - begin, c]), [1, 0, 2]);
    if (rotaryDim === c) return rope(byRow, table);
    const half = (from: number, n: number): Tensor => tf.slice(byRow, [0, 0, from], [end - begin, kvHeads, n]);
    return tf.concat([rope(half(0, rotaryDim), table), half(rotaryDim, c - rotaryDim)], 2);
  });
  try {
    return floats(turned).slice();
  } finally {
    turned.dispose();
  }
}
