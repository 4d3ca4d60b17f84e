// Checks of the options that methods share.

import { type Check, oneOf } from '../options';

/** A share to drop. */
export const SHARE: Check = {
  expected: 'a share of at least 0 and below 1',
  accepts: (value) => typeof value === 'number' && value >= 0 && value < 1,
};

/** A layer: an integer, negative counted from the last; or a share of the depth between 0 and 1. */
export const LAYER: Check = {
  expected: 'a layer number, or a share of the depth between 0 and 1',
  accepts: (value) => Number.isSafeInteger(value) || (typeof value === 'number' && value > 0 && value < 1),
};

/** Three layers at which stages begin, ascending. */
export const THREE_LAYERS: Check = {
  expected: 'three layers, each a number or a share of the depth between 0 and 1,',
  accepts: (value) => Array.isArray(value) && value.length === 3 && Array.from(value).every(LAYER.accepts),
};

export const POSITIONS = oneOf('original', 'compact');

/** The options of methods that only prune. */
export const PRUNING = { prefillSparsity: SHARE, positions: POSITIONS } as const;
