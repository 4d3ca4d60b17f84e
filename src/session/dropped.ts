// Sessions and answers that are dropped without `dispose`: their memory belongs to the engine and is invisible to the garbage collector,
// so it is freed after the garbage collector has collected the object, with one warning per process.

const DROPPED = new FinalizationRegistry<() => boolean>((release) => {
  if (release()) warnOnce();
});
let isWarned = false;

/**
 * Calls `release` after `target` was collected. `release` must hold no reference to `target`.
 * @param release returns whether there was anything to free
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
