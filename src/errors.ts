/** The one error class of this package: `code` is stable and for programs, `message` says what was expected, what came and what to try. */
export class SparseVilaError extends Error {
  constructor(
    readonly code: string,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
    this.name = 'SparseVilaError';
  }
}
