// The definition of attention, in double precision.

export interface AttentionShape {
  readonly t: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly c: number;
  /** Scores s become softcap tanh(s / softcap); absent: they stay. */
  readonly softcap?: number | undefined;
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
  const { t, heads, kvHeads, c, softcap } = shape;
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
        const score = dot / Math.sqrt(c);
        scores[j] = softcap === undefined ? score : softcap * Math.tanh(score / softcap);
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
