// Dense: every visual token lives and every row is attended.

import type { SparsityMethod } from './method';

export function dense(): SparsityMethod {
  return { name: 'dense' };
}
