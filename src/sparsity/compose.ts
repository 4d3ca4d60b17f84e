// Combines two methods: `prune` and `drop` of the first, `retrieve` of the second.

import { checkedMethod } from './checked';
import type { SparsityMethod } from './method';

/**
 * A method with `prune`, `drop` and `positions` of the first method and `retrieve` of the second.
 * @throws SparseVilaError `ERR_METHOD` for an argument that is not a method
 */
export function compose(prunes: SparsityMethod, retrieves: SparsityMethod): SparsityMethod {
  const [{ retrieve: _, ...first }, { name, retrieve }] = [checkedMethod(prunes), checkedMethod(retrieves)];
  return { ...first, name: `${first.name}+${name}`, ...(retrieve && { retrieve }) };
}
