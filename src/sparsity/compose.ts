// Two methods as one: what the first prunes and drops, and of that what the second retrieves.

import type { SparsityMethod } from './method';

/** Any `prune` or `drop` with any `retrieve`; what else the two can do is left out. */
export function compose(prunes: SparsityMethod, retrieves: SparsityMethod): SparsityMethod {
  const { retrieve: _, window: _w, evicts: _e, ...first } = prunes;
  const { retrieve, window, evicts } = retrieves;
  return {
    ...first,
    name: `${prunes.name}+${retrieves.name}`,
    ...(retrieve && { retrieve }),
    ...(window !== undefined && { window }),
    ...(evicts !== undefined && { evicts }),
  };
}
