// Records the views of a method: its salience, which is computed even if the method does not read it, and its relevance, which is
// computed even if everything is attended. Keeping and attending everything equals dense bit for bit, so recording changes no answer.

import { checkedMethod } from './checked';
import type { SparsityMethod, VisualPlace } from './method';
import { everyIndex } from './vectors';

/** The relevance that `retrieve` received in one layer, and the places of the visual rows. */
export interface LayerRelevance {
  readonly scores: Float32Array;
  readonly places: readonly VisualPlace[];
}

export interface Observed {
  readonly method: SparsityMethod;
  /** Per layer, the relevance in the turn that has just ended; undefined if there was none. Can be read once per turn. */
  readonly takeRelevance: () => readonly LayerRelevance[] | undefined;
}

/**
 * `watched` with salience added to its taps, and with a `retrieve` of everything if it has none.
 * @throws SparseVilaError `ERR_METHOD` for an argument that is not a method
 */
export function observed(watched: SparsityMethod): Observed {
  const { prune, retrieve, ...inner } = checkedMethod(watched);
  let seen: LayerRelevance[] = [];
  const salience = prune?.taps?.salience?.length ? prune.taps.salience : [-1];
  const method: SparsityMethod = {
    ...inner,
    prune: {
      ...(prune ?? { scope: 'plane', select: (grids) => grids.map(({ tokens }) => everyIndex(tokens)) }),
      taps: { ...prune?.taps, salience },
    },
    retrieve: {
      ...retrieve,
      select: (relevance, layer, places, total) => {
        seen[layer] = { scores: relevance.slice(), places: [...places] };
        return retrieve?.select(relevance, layer, places, total) ?? everyIndex(relevance.length);
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
