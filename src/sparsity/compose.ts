// Two methods as one: what the first prunes and drops, and of that what the second retrieves.

import { checkedMethod } from './checked';
import type { SparsityMethod } from './method';

/**
 * Any `prune` or `drop` with any `retrieve`; what else the two can do is left out.
 * @throws SparseVilaError `ERR_METHOD` for what is no method
 */
export function compose(prunes: SparsityMethod, retrieves: SparsityMethod): SparsityMethod {
  const { retrieve: _, window: _w, evicts: _e, ...first } = checkedMethod(prunes);
  const { name, retrieve, window, evicts } = checkedMethod(retrieves);
  return {
    ...first,
    name: `${first.name}+${name}`,
    ...(retrieve && { retrieve }),
    ...(window !== undefined && { window }),
    ...(evicts !== undefined && { evicts }),
  };
}
