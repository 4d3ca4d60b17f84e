// Exact softmax attention: over plain tensors (full or causal), and over rows of a KV cache gathered through an index.
// Both can also return the column mean of the softmax, which is SparseVILA's salience (in the tower) and relevance (in the
// decoder): mean over heads and queries of P, per key (arXiv 2510.17777, section 3; z-lab/flash-colreduce).

import type { Tensor } from '../runtime/tensor';
import { runTwo, withInt32 } from './run';

export interface AttentionResult {
  /** f32 [t, h, c] */
  readonly out: Tensor;
  /** f32 [keys], or [0] when not asked for */
  readonly columns: Tensor;
}

/**
 * softmax(q k^T / sqrt(c)) v. Query heads h are a multiple of kv heads g; head i uses kv head floor(i g / h).
 * @param q f32 [t, h, c]
 * @param k f32 [n, g, c]
 * @param v f32 [n, g, c]
 * Causal: query i sees keys 0 .. n - t + i.
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: { causal?: boolean; columns?: boolean } = {},
): AttentionResult {
  const flags = [Number(options.causal ?? false), Number(options.columns ?? false)];
  const [out, columns] = withInt32(flags, (f) => runTwo('SvAttention', [q, k, v, f]));
  return { out, columns };
}

/**
 * Attention of the cache's last t rows' queries over `rows` (ascending, below `tail`) and then rows tail .. length - 1,
 * causally. Columns are in that order: gathered rows first.
 * @param q f32 [t, h, c], rotated
 * @param rows int32 [r]
 * @param range tail: first row of the contiguous rest; length: rows in the cache, those of q included
 */
export function gatheredSparseAttention(
  q: Tensor,
  kv: Tensor,
  rows: Tensor,
  range: { tail: number; length: number; columns?: boolean },
): AttentionResult {
  const values = [range.tail, range.length, Number(range.columns ?? false)];
  const [out, columns] = withInt32(values, (r) => runTwo('SvGatheredSparseAttention', [q, kv, rows, r]));
  return { out, columns };
}

export interface AttentionShape {
  readonly t: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly c: number;
}

/**
 * The definition, in double precision. k and v are [n, g, c]; `sees(i, j)` says whether query i sees key j (a mask: the
 * gathered op must equal it with everything else masked away).
 */
export function attentionReference(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  shape: AttentionShape,
  sees: (query: number, key: number) => boolean,
): { out: Float64Array; columns: Float64Array } {
  const { t, heads, kvHeads, c } = shape;
  const n = k.length / (kvHeads * c);
  const out = new Float64Array(t * heads * c);
  const columns = new Float64Array(n);
  for (let i = 0; i < t; i++)
    for (let h = 0; h < heads; h++) {
      const query = (i * heads + h) * c;
      const key = (j: number): number => (j * kvHeads + Math.floor((h * kvHeads) / heads)) * c;
      const scores = new Float64Array(n).fill(-Infinity);
      for (let j = 0; j < n; j++) {
        if (!sees(i, j)) continue;
        let dot = 0;
        for (let e = 0; e < c; e++) dot += (q[query + e] as number) * (k[key(j) + e] as number);
        scores[j] = dot / Math.sqrt(c);
      }
      const top = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((s) => Math.exp(s - top));
      const sum = weights.reduce((a, b) => a + b, 0);
      for (let j = 0; j < n; j++) {
        const p = (weights[j] as number) / sum;
        if (p === 0) continue;
        columns[j] = (columns[j] as number) + p / (heads * t);
        for (let e = 0; e < c; e++) out[query + e] = (out[query + e] as number) + p * (v[key(j) + e] as number);
      }
    }
  return { out, columns };
}
