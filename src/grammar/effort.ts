// Bounds the work of making an expression of a schema, and of finding the tokens that may come next, which run without a break while all other
// answers wait: a few kilobytes of schema can ask for minutes. Work is counted in steps and not in time, so that a schema is accepted or refused
// on every machine alike.

import { invalidOption } from '../options';

/** Maximum number of steps of one schema, or of one mask: about a second. It is enough for a quarter of the expressions that there may be. */
const MOST_STEPS = 2_000_000;

let left = Number.POSITIVE_INFINITY;

/** Counts steps of the work that runs. @throws SparseVilaError `ERR_OPTION_INVALID` when there were too many */
export function spend(steps: number): void {
  left -= steps;
  if (left < 0) throw invalidOption('format', `a schema of at most ${MOST_STEPS} steps`, 'one that takes more');
}

/** Runs `work`, which does not wait for anything, with a bound on its steps. @throws what `work` throws; as `spend` */
export function bounded<T>(work: () => T): T {
  const before = left;
  left = MOST_STEPS;
  try {
    return work();
  } finally {
    left = before;
  }
}
