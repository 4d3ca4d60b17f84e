// SparseVLM and SparseVLM+ (Zhang et al., arXiv 2410.04417): between layers, drops the visual rows that the question's rater words attend
// least; SparseVLM merges the best of the dropped rows into a few clusters that are kept.
// Stage: prefill. Query-aware: yes. Safe for later turns: no.
// Differences: shares are the released code's fixed counts, scaled; clusters take the places of their centers and count as kept; rows keep
// their positions, as in SparseVLM+. SparseVLM+ does not divide by the rotary bias and takes the mean over all heads.

import { checkOptions } from '../options';
import { recycle } from './density_peaks';
import type { DropView, Matrix, Selection, SparsityMethod } from './method';
import { SHARE, THREE_LAYERS } from './options';
import { stageBudget } from './stages';
import { topK } from './top_k';

export interface SparseVlmOptions {
  /** Share of visual rows dropped, mean over all layers; default that of the released counts for 192 of 576 tokens. */
  readonly prefillSparsity?: number;
  /** Decoder layers at which the stages begin; default 3/32, 7/32 and 16/32 of the depth: after 2, 6 and 15 of 32 layers. */
  readonly layers?: readonly [number, number, number];
}

/** SparseVLM: with recycling. */
export function sparseVlm(options: SparseVlmOptions = {}): SparsityMethod {
  return method('sparsevlm', options, [300 / 576, 200 / 576, 110 / 576], withClusters);
}

/** SparseVLM+: without recycling. */
export function sparseVlmPlus(options: SparseVlmOptions = {}): SparsityMethod {
  return method('sparsevlm+', options, [300 / 576, 200 / 576, 118 / 576], ({ scores }, kept) => topK(scores, kept));
}

function method(
  name: string,
  options: SparseVlmOptions,
  shares: readonly [number, number, number],
  select: (view: DropView, kept: number) => Selection,
): SparsityMethod {
  const given = checkOptions(name, options, { prefillSparsity: SHARE, layers: THREE_LAYERS });
  const [a, b, c] = shares;
  const { prefillSparsity = 1 - (3 + 4 * a + 9 * b + 16 * c) / 32, layers = [3 / 32, 7 / 32, 16 / 32] } = given;
  return {
    name,
    drop: { layers, raters, select: (view) => select(view, stageBudget(view, shares, 1 - prefillSparsity)) },
  };
}

/** Raters: words t with m_t > mean(m), m_t = mean over visual v of softmax_t(v . t), on input embeddings. */
export function raters(question: Matrix, visual: Matrix): Int32Array {
  const { width } = question;
  const [words, tokens] = [question.data.length / width, visual.data.length / width];
  const means = new Float64Array(words);
  for (let v = 0; v < tokens; v++) {
    const products = Float64Array.from({ length: words }, (_, t) => {
      let sum = 0;
      for (let c = 0; c < width; c++)
        sum += (visual.data[v * width + c] as number) * (question.data[t * width + c] as number);
      return sum;
    });
    const top = products.reduce((a, b) => Math.max(a, b));
    const powers = products.map((product) => Math.exp(product - top));
    const sum = powers.reduce((a, b) => a + b);
    for (const [t, power] of powers.entries()) means[t] = (means[t] as number) + power / sum / tokens;
  }
  return Int32Array.from(means.keys()).filter((t) => (means[t] as number) > 1 / words);
}

/** Of n dropped rows the best floor(0.3 n) + 1 = m form floor(m / 10) + 1 clusters; the rest of the budget goes to the top scores. */
function withClusters({ scores, hidden }: DropView, kept: number): Selection {
  const pool = Math.floor(0.3 * (scores.length - kept)) + 1;
  const clusters = Math.floor(pool / 10) + 1;
  if (kept === scores.length || kept <= clusters) return topK(scores, kept);
  const best = topK(scores, kept - clusters);
  const others = scores.slice();
  for (const i of best) others[i] = Number.NEGATIVE_INFINITY;
  return recycle(hidden(), best, topK(others, pool), clusters);
}
