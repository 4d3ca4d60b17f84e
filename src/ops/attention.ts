// Exact softmax attention: over plain tensors (full or causal), and over rows of a KV cache gathered through an index.
// Both can also return the column mean of the softmax, which is SparseVILA's salience (in the tower) and relevance (in the
// decoder): mean over heads and queries of P, per key (arXiv 2510.17777, section 3; z-lab/flash-colreduce).

import type { Tensor } from '../runtime/tensor';
import { floatBits, noInt32, runTwo, withInt32 } from './run';

export interface AttentionResult {
  /** f32 [t, h, c] */
  readonly out: Tensor;
  /** f32 [keys], or [0] if not requested */
  readonly columns: Tensor;
}

export interface AttentionOptions {
  readonly causal?: boolean;
  readonly columns?: boolean;
  readonly spans?: Tensor | undefined;
  readonly scale?: number | undefined;
  readonly softcap?: number | undefined;
}

/**
 * softmax(cap(scale q k^T)) v, cap(s) = softcap tanh(s / softcap). Query heads h are a multiple of kv heads g; head i uses kv head floor(i g / h).
 * @param q f32 [t, h, c]
 * @param k f32 [n, g, c]
 * @param v f32 [n, g, c]
 * Causal: query i sees keys 0 .. n - t + i.
 * @param options.scale default c ** -0.5
 * @param options.softcap default: scores stay
 * @param options.spans int32 [t, 2] (from, to): query i sees keys from .. to - 1 and no others; not with `causal`
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): AttentionResult {
  const { causal = false, columns: wanted = false, scale = 0, softcap = 0 } = options;
  const flags = [Number(causal), Number(wanted), floatBits(scale), floatBits(softcap)];
  const spans = options.spans ?? noInt32();
  const [out, columns] = withInt32(flags, (f) => runTwo('SvAttention', [q, k, v, f, spans]));
  return { out, columns };
}

/**
 * Attention of the cache's last t rows' queries over `rows` (ascending, below `tail`) and then rows tail .. length - 1,
 * causally. Columns are in that order: gathered rows first.
 * @param q f32 [t, h, c], rotated
 * @param rows int32 [r]
 * @param range tail: first row of the contiguous tail; length: number of rows in the cache, those of q included
 * @param spans int32 [t, 2] (from, to): query i sees from .. to - 1 of these rows, in their order, instead of all before it
 */
export function gatheredSparseAttention(
  q: Tensor,
  kv: Tensor,
  rows: Tensor,
  range: { tail: number; length: number; columns?: boolean },
  spans = noInt32(),
): AttentionResult {
  const values = [range.tail, range.length, Number(range.columns ?? false)];
  const [out, columns] = withInt32(values, (r) => runTwo('SvGatheredSparseAttention', [q, kv, rows, r, spans]));
  return { out, columns };
}
