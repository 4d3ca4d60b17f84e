// Whether more rows fit into the context of a conversation.

import { SparseVilaError } from '../errors';
import { type Conversation, lengthOf, type Point } from './conversation';

/** @throws SparseVilaError `ERR_CONTEXT_OVERFLOW` if `rows` more rows, which take `positions` positions, and one answer token do not fit */
export function checkRoom(
  conversation: Conversation,
  rows: number,
  positions: number,
  known = '',
  from: Pick<Point, 'length' | 'nextPosition'> = {
    length: lengthOf(conversation),
    nextPosition: conversation.nextPosition,
  },
): void {
  const { length } = from;
  const needed = Math.max(length + rows, from.nextPosition + positions) + 1;
  if (needed <= conversation.capacity) return;
  throw new SparseVilaError(
    'ERR_CONTEXT_OVERFLOW',
    `The conversation needs ${known === '' ? '' : `${known} `}${needed} tokens of context (${length} so far, ${rows} in this turn, 1 for an answer) but has ` +
      `${conversation.capacity}. Ask in a new session, rewind, forget each turn's text (history: 'forget'), use fewer images, or raise contextLength.`,
  );
}
