// A method as it is, with what it is shown kept for a look afterwards: salience even where it reads none, relevance even where
// everything is attended. Attending all is dense bit for bit, so that watching changes no answer.

import { checkedMethod } from './checked';
import type { Place, SparsityMethod } from './method';

/** What a layer's retrieval was shown: the relevance of visual rows, and where these lie in their images. */
export interface LayerRelevance {
  readonly scores: Float32Array;
  readonly places: readonly Place[];
}

export interface Observed {
  readonly method: SparsityMethod;
  /** Per layer, what the turn that has just ended was shown; undefined when it was shown nothing. Once per turn. */
  readonly takeRelevance: () => readonly LayerRelevance[] | undefined;
}

/**
 * `inner` with salience asked for where it asks for none, and a `retrieve` of everything where it has none.
 * @throws SparseVilaError `ERR_METHOD` for what is no method
 */
export function observed(watched: SparsityMethod): Observed {
  const inner = checkedMethod(watched);
  let seen: LayerRelevance[] = [];
  const salience = inner.tower?.salience?.length ? inner.tower.salience : [-1];
  const method: SparsityMethod = {
    ...inner,
    tower: { ...inner.tower, salience },
    retrieve: (relevance, layer, places) => {
      seen[layer] = { scores: relevance.slice(), places: [...places] };
      return inner.retrieve?.(relevance, layer, places) ?? Int32Array.from(relevance.keys());
    },
  };
  return {
    method,
    takeRelevance: () => {
      const taken = seen;
      seen = [];
      return taken.length === 0 ? undefined : taken;
    },
  };
}
