// An error as the one line that people see: its code, where it has one, and its message.

import { codeOf, messageOf } from '../errors';

/** `sparsevila: ERR_IMAGE_EMPTY: Expected …`, without a line break at the end. */
export function errorLine(error: unknown): string {
  const code = codeOf(error);
  return `sparsevila: ${code === undefined ? '' : `${code}: `}${messageOf(error)}`;
}
