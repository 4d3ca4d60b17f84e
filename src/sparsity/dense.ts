// Dense: every visual token is kept and every row is attended.

import type { SparsityMethod } from './method';

export function dense(): SparsityMethod {
  return { name: 'dense' };
}
