// The one error class of the framework: a message for people and a stable `code` for programs.
// Knows nothing of what failed.

/** The codes a program may branch on. A message may change between versions; a code does not. */
export type ErrorCode = `ERR_${string}`;

/**
 * An error whose message says what was expected, for which name, what was received and what to try.
 * `code` is stable and starts with `ERR_`; `cause` is the error underneath, where there is one.
 */
export class SparseVilaError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.name = 'SparseVilaError';
    this.code = code;
  }
}

/** The `code` of any error, ours or Node's (`ENOENT`, …); undefined where there is none. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** The message of whatever was thrown, for one line of output. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
