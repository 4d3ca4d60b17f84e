// The tokens of a text, each with its own text.

import type { Tokenizer } from './tokenizer';

/** @throws SparseVilaError `ERR_OPTION_INVALID` for what is not a text; `ERR_TOKENIZER`, `ERR_TOKENIZER_LIMIT` */
export function tokenize(
  { tokenizer }: { readonly tokenizer: Tokenizer },
  text: string,
): { readonly id: number; readonly text: string }[] {
  return tokenizer.encode(text).map((id) => ({ id, text: Buffer.from(tokenizer.bytes.bytesOf(id)).toString('utf8') }));
}
