// The random draws of scenes, all from one seeded stream. Each has a defined number of uniforms, so that scripts/fixtures/scenes.py can repeat
// them draw by draw.

import { uniform } from '../text/random';

export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** Uniform integer below n. */
  below(n: number): number;
  /** One of a list that is not empty. */
  choice<T>(list: readonly T[]): T;
  /** k different integers below n, in the order drawn (Fisher and Yates' shuffle, stopped after k). */
  sample(n: number, k: number): number[];
}

/** Seeds are integers in [0, 2^53). */
export function randomFrom(seed: number): Random {
  const next = uniform(seed);
  const below = (n: number): number => Math.floor(next() * n);
  return {
    next,
    below,
    choice: (list) => list[below(list.length)] as (typeof list)[number],
    sample: (n, k) => {
      const all = Array.from({ length: n }, (_, i) => i);
      for (let i = 0; i < k; i++) {
        const j = i + below(n - i);
        [all[i], all[j]] = [all[j] as number, all[i] as number];
      }
      return all.slice(0, k);
    },
  };
}
