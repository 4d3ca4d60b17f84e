// Rows that are selected again while an answer is written: what a long answer is about shifts, and the question's relevance says nothing about it.
// Source: DSTP, arXiv 2604.12358, selects again in decoding when relevance shifts; its formula is not public. The rules here are ours.

import { received } from '../errors';
import { COUNT, checkOptions, invalidOption } from '../options';
import { checkedMethod } from './checked';
import type { Refresh, SparsityMethod } from './method';

/**
 * The method, which selects what an answer attends again while it is written.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, also for a method that retrieves nothing, chosen frames, or permanently
 */
export function refreshed(method: SparsityMethod, refresh: Refresh): SparsityMethod {
  const checked = checkedMethod(method);
  const given = checkOptions<Refresh>('refreshed', refresh, { every: COUNT, rejected: COUNT });
  const { retrieve } = checked;
  if (retrieve === undefined || !canRefresh(checked))
    throw invalidOption(
      'refreshed',
      'a method that retrieves in each turn from all kept rows, such as sparseVila(),',
      received(checked.name),
    );
  return checkedMethod({ ...checked, retrieve: { ...retrieve, refresh: given } });
}

/** Whether what an answer attends can be selected again: the method retrieves from all kept rows, and loses none. */
export function canRefresh({ retrieve }: SparsityMethod): boolean {
  return retrieve !== undefined && retrieve.permanent !== true && retrieve.frames === undefined;
}
