// Formats an error as one line for people: its code, if it has one, and its message.

import { codeOf, messageOf } from '../errors';

/** `sparsevila: ERR_IMAGE_EMPTY: Expected …`, without a line break at the end. */
export function errorLine(error: unknown): string {
  const code = codeOf(error);
  return `sparsevila: ${code === undefined ? '' : `${code}: `}${messageOf(error)}`;
}
