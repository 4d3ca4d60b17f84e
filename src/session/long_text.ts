// Counts the tokens of long texts piece by piece, so that a text that does not fit is refused early and counting can be aborted.

import type { Tokenizer } from '../text/tokenizer';
import type { Conversation } from './conversation';
import { checkRoom } from './room';

/** Number of characters that are tokenized in one piece: less than a second of work for any text. */
const PIECE = 32_768;
/** An upper bound of the tokens that a cut between two pieces can add. */
const SLACK = 64;

/** Whether a text is long enough to be counted before it is tokenized as a whole. */
export function isLong(text: string): boolean {
  return text.length > PIECE;
}

/**
 * Counts a lower bound of the tokens of a long text.
 * @throws SparseVilaError `ERR_CONTEXT_OVERFLOW` as soon as the bound does not fit; whatever `pace` throws
 */
export async function checkLength(
  conversation: Conversation,
  text: string,
  { encode }: Pick<Tokenizer, 'encode'>,
  pace: () => Promise<void>,
): Promise<void> {
  if (!isLong(text)) return;
  let rows = 0;
  for (let begin = 0; begin < text.length; begin += PIECE) {
    const piece = text.slice(begin, begin + PIECE);
    const ids = encode(piece, { plain: [{ begin: 0, end: piece.length }], continues: true });
    rows += Math.max(0, ids.length - SLACK);
    checkRoom(conversation, rows, rows, 'at least');
    await pace();
  }
}
