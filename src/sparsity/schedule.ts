// Which decoder layers attend the retrieved visual rows, all of them, or none while an answer is written. In deep layers visual rows carry little
// that the text rows do not hold by then, and in the first ones relevance does not depend on the question yet.
// Source: Information Horizon, arXiv 2512.07580, finds the layers from which on visual tokens can go; the schedule of decoding is ours.

import { SparseVilaError } from '../errors';
import { checkOptions, listOf, NATURAL } from '../options';
import { checkedMethod } from './checked';
import type { SparsityMethod } from './method';

/** Decoder layers, counted from 0. The other layers attend what the method retrieves. */
export interface Schedule {
  /** Layers that attend all visual rows. */
  readonly dense?: readonly number[];
  /** Layers that attend no visual rows. */
  readonly none?: readonly number[];
}

const LAYERS = listOf('layers, each an integer of at least 0,', NATURAL);

/**
 * The method with a schedule for its retrieval. Its prefill is the same, and nothing is lost: later turns may have another schedule.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for a layer in both lists; `ERR_METHOD` for a method that retrieves permanently
 */
export function scheduled(method: SparsityMethod, schedule: Schedule): SparsityMethod {
  const checked = checkedMethod(method);
  const given = checkOptions<Schedule>('scheduled', schedule, { dense: LAYERS, none: LAYERS });
  const [dense, none] = [new Set(given.dense), new Set(given.none)];
  const twice = [...dense].find((layer) => none.has(layer));
  if (twice !== undefined)
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected each layer in one list of a schedule, received layer ${twice} in dense and none.`,
    );
  const { retrieve } = checked;
  if (retrieve?.permanent === true)
    throw new SparseVilaError(
      'ERR_METHOD',
      `Expected a method that keeps the rows it does not retrieve, received ${checked.name}, which discards them.`,
    );
  return {
    ...checked,
    retrieve: {
      ...retrieve,
      select: (relevance, layer, places, total) => {
        if (none.has(layer)) return new Int32Array();
        if (dense.has(layer) || retrieve === undefined) return Int32Array.from(relevance.keys());
        return retrieve.select(relevance, layer, places, total);
      },
    },
  };
}
