// A method as it is, with what it is shown kept for a look afterwards: salience even where nothing is pruned, relevance even
// where everything is attended. Keeping all is dense bit for bit, so that watching changes no answer.

import type { SparsityMethod } from './method';

export interface Observed {
  readonly method: SparsityMethod;
  /** Of the last turn, per layer: the relevance of every visual row in the cache. */
  readonly relevance: () => readonly Float32Array[];
}

/** `inner` with the seams that it lacks filled by keeping everything. */
export function observed(inner: SparsityMethod): Observed {
  let seen: Float32Array[] = [];
  const method: SparsityMethod = {
    ...inner,
    prune: (images) => inner.prune?.(images) ?? images.map(({ tokens }) => everything(tokens)),
    retrieve: (relevance, layer) => {
      if (layer === 0) seen = [];
      seen[layer] = relevance.slice();
      return inner.retrieve?.(relevance, layer) ?? everything(relevance.length);
    },
  };
  return { method, relevance: () => seen };
}

function everything(n: number): Int32Array {
  return Int32Array.from({ length: n }, (_, i) => i);
}
