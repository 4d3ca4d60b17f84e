// What the options of methods may be.

import { type Check, oneOf } from '../options';

/** A share dropped. */
export const SHARE: Check = {
  expected: 'a share of at least 0 and below 1',
  accepts: (value) => typeof value === 'number' && value >= 0 && value < 1,
};

/** A layer: an integer, negative from the last; or, between 0 and 1, a share of the depth. */
export const LAYER: Check = {
  expected: 'a layer number, or a share of the depth between 0 and 1',
  accepts: (value) => Number.isSafeInteger(value) || (typeof value === 'number' && value > 0 && value < 1),
};

/** Where three stages begin: as many layers, ascending. */
export const THREE_LAYERS: Check = {
  expected: 'three layers, each a number or a share of the depth between 0 and 1,',
  accepts: (value) => Array.isArray(value) && value.length === 3 && Array.from(value).every(LAYER.accepts),
};

export const POSITIONS = oneOf('original', 'compact');
