// Writes docs/errors.md from the record of error codes: `npm run build && node dist/scripts/errors.js`.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERROR_CODES } from '../src/errors';
import { packageFolder } from '../src/runtime/paths';

export const ERRORS_PAGE = join(packageFolder(), 'docs', 'errors.md');

/** The page: a line for each code. */
export function errorsPage(): string {
  const lines = Object.entries(ERROR_CODES).map(([code, meaning]) => `- \`${code}\`: ${meaning}`);
  return `${[
    '# Error codes',
    '',
    'Every error that leaves the public API is a `SparseVilaError` with one of these codes, or the `reason` of the `AbortSignal`',
    'that the caller gave. The message says what was expected, for which name, what was received and what to try; `cause` is the',
    'error underneath, where there is one. Programs branch on `code`: messages may change between versions.',
    '',
    'This page is generated from `src/errors.ts`: `npm run build && node dist/scripts/errors.js`.',
    '',
    ...lines,
  ].join('\n')}\n`;
}

if (require.main === module) writeFileSync(ERRORS_PAGE, errorsPage());
