// Two methods as one: `prune` and `drop` of the first, `retrieve` of the second.

import { checkedMethod } from './checked';
import type { SparsityMethod } from './method';

/**
 * `prune`, `drop` and `positions` of the first method with `retrieve` of the second.
 * @throws SparseVilaError `ERR_METHOD` for what is no method
 */
export function compose(prunes: SparsityMethod, retrieves: SparsityMethod): SparsityMethod {
  const [{ retrieve: _, ...first }, { name, retrieve }] = [checkedMethod(prunes), checkedMethod(retrieves)];
  return { ...first, name: `${first.name}+${name}`, ...(retrieve && { retrieve }) };
}
