// What becomes of sessions and answers that are dropped without dispose: their memory is the engine's, which the garbage collector does
// not see, so it is freed when it has collected them, and a warning is given once.

const DROPPED = new FinalizationRegistry<() => boolean>((release) => {
  if (release()) warnOnce();
});
let isWarned = false;

/**
 * Calls `release` after `target` was collected. What `release` refers to must not lead to `target`.
 * @param release whether there was anything to free
 */
export function whenDropped(target: object, release: () => boolean): void {
  DROPPED.register(target, release);
}

function warnOnce(): void {
  if (isWarned) return;
  isWarned = true;
  process.emitWarning('A session or an answer was dropped before its end. Its memory has been freed only now.', {
    type: 'SparseVilaWarning',
    code: 'SPARSEVILA_DROPPED',
    detail: 'Call dispose() of a session, or declare it by `using`; read an answer to its end, or leave its loop.',
  });
}
