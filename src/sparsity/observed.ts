// A method whose views are recorded: salience even where the method reads none, relevance even where everything is attended.
// Keeping and attending everything is dense bit for bit, so that watching changes no answer.

import { checkedMethod } from './checked';
import type { SparsityMethod, VisualPlace } from './method';

/** What a layer's retrieval was shown: the relevance of visual rows, and where these lie in their images. */
export interface LayerRelevance {
  readonly scores: Float32Array;
  readonly places: readonly VisualPlace[];
}

export interface Observed {
  readonly method: SparsityMethod;
  /** Per layer, what the turn that has just ended was shown; undefined when it was shown nothing. Once per turn. */
  readonly takeRelevance: () => readonly LayerRelevance[] | undefined;
}

/**
 * `watched` with salience asked for where it asks for none, and a `retrieve` of everything where it has none.
 * @throws SparseVilaError `ERR_METHOD` for what is no method
 */
export function observed(watched: SparsityMethod): Observed {
  const { prune, retrieve, ...inner } = checkedMethod(watched);
  let seen: LayerRelevance[] = [];
  const salience = prune?.taps?.salience?.length ? prune.taps.salience : [-1];
  const method: SparsityMethod = {
    ...inner,
    prune: {
      select: (grids) => grids.map(({ tokens }) => everyIndex(tokens)),
      ...prune,
      taps: { ...prune?.taps, salience },
    },
    retrieve: {
      ...retrieve,
      select: (relevance, layer, places) => {
        seen[layer] = { scores: relevance.slice(), places: [...places] };
        return retrieve?.select(relevance, layer, places) ?? everyIndex(relevance.length);
      },
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

const everyIndex = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);
