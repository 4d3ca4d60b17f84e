// Ids against the rows of a model's embedding: a tokenizer may know more tokens than the model has.
import { type ErrorCode, SparseVilaError } from '../errors';
import type { TurnPieces } from './template';
import type { Tokenizer } from './tokenizer';

/**
 * @param rows of the embedding
 * @param what the ids are, for the message: 'the prompt'
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

/**
 * Checks the constant text of a template's turns: no marker of an image, and no token that the model does not embed.
 * @throws SparseVilaError `ERR_TEMPLATE_INVALID`
 */
export function checkPieces(
  pieces: TurnPieces,
  tokenizer: Tokenizer,
  marker: { readonly text: string; readonly id: number },
  { rows, file }: { rows: number; file: string },
): void {
  const { first, next, endOfAnswer } = pieces;
  const texts = [first.before, first.after, endOfAnswer, next.before, next.after];
  const ids = texts.flatMap((text) => tokenizer.encode(text));
  if (ids.includes(marker.id)) {
    throw new SparseVilaError(
      'ERR_TEMPLATE_INVALID',
      `${file}: expected a chat template without the image marker ${JSON.stringify(marker.text)}: a session puts it where its images are.`,
    );
  }
  checkEmbedded([...tokenizer.prefixIds, ...ids], tokenizer, rows, `the chat template ${file}`, 'ERR_TEMPLATE_INVALID');
}
