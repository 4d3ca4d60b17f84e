// Checks ids against the rows of a model's embedding: a tokenizer may have more tokens than the model.
import { type ErrorCode, SparseVilaError } from '../errors';
import type { Tokenizer } from './tokenizer';

/**
 * @param rows number of rows of the embedding
 * @param what describes the ids in the message, such as 'the prompt'
 * @throws SparseVilaError `code` for an id that has no row
 */
export function checkEmbedded(
  ids: readonly number[],
  tokenizer: Tokenizer,
  rows: number,
  what: string,
  code: ErrorCode,
): void {
  const id = ids.find((id) => !(id >= 0 && id < rows));
  if (id === undefined) return;
  const token = JSON.stringify(tokenizer.decode([id], { skipSpecial: false }));
  throw new SparseVilaError(
    code,
    `Expected tokens of the model's embedding, which has ${rows} rows, in ${what}; received the token ${token} with the id ${id}. ` +
      'The tokenizer knows more tokens than the model was made for.',
  );
}
