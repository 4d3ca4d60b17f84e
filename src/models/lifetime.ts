// The lifetime of a model: it cannot be disposed of while it is in use, nor used after it was disposed of.

import { SparseVilaError } from '../errors';

export interface Lifetime {
  /** @throws SparseVilaError `ERR_DISPOSED` once the model has been disposed of */
  check(): void;
  /** Prevents disposal until the returned function is called. @throws SparseVilaError `ERR_DISPOSED` */
  hold(): () => void;
}

/** `model` with a lifetime. Its `dispose` throws `ERR_BUSY` while it is held; a second call does nothing. */
export function withLifetime<M extends { readonly path: string; dispose(): void }>(
  model: M,
): M & { readonly lifetime: Lifetime } {
  let isDisposed = false;
  let holders = 0;
  const check = (): void => {
    if (!isDisposed) return;
    throw new SparseVilaError('ERR_DISPOSED', `The model ${model.path} has been disposed of. Load it again.`);
  };
  const hold = (): (() => void) => {
    check();
    holders++;
    let isHeld = true;
    return () => {
      if (isHeld) holders--;
      isHeld = false;
    };
  };
  const dispose = (): void => {
    if (isDisposed) return;
    if (holders > 0) {
      throw new SparseVilaError(
        'ERR_BUSY',
        `The model ${model.path} has an answer running (${holders} in all). Finish or abort what runs, then dispose of the model.`,
      );
    }
    isDisposed = true;
    model.dispose();
  };
  return { ...model, lifetime: { check, hold }, dispose };
}
