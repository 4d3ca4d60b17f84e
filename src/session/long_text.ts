// Texts that take long to tokenize: counted piece by piece, so that one which does not fit is refused early and can be aborted meanwhile.

import type { Tokenizer } from '../text/tokenizer';
import { type Conversation, checkRoom } from './conversation';

/** Characters that are tokenized at once: below a second of work whatever they are. */
const PIECE = 32_768;
/** More tokens than a cut between two pieces can add. */
const SLACK = 64;

/** Whether a text has to be counted before it is tokenized as a whole. */
export function isLong(text: string): boolean {
  return text.length > PIECE;
}

/**
 * Counts the tokens that a long text has at least.
 * @throws SparseVilaError `ERR_CONTEXT_OVERFLOW` once they do not fit; what `pace` throws
 */
export async function checkLength(
  c: Conversation,
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
    checkRoom(c, rows, rows, 'at least');
    await pace();
  }
}
