// A copy of the rows that the next request will probably begin with, made while nothing runs.

import type { KvCache } from '../models/kv_cache';

export interface Ahead {
  /** Bytes that it takes. */
  readonly bytes: number;
  /** Whether it has the copy of exactly this beginning. */
  has(kind: string, marks: readonly unknown[]): boolean;
  /** Keeps what `copy` returns for a beginning, of which it has none; nothing if there is no memory for it. */
  keep(kind: string, marks: readonly unknown[], copy: () => KvCache): void;
  /** Gives away the copy of exactly this beginning; undefined if it has none. */
  take(kind: string, marks: readonly unknown[]): KvCache | undefined;
  /** Frees the copy; returns its bytes. */
  drop(): number;
}

export function aheadOf(): Ahead {
  let kept: { readonly kind: string; readonly marks: readonly unknown[]; readonly cache: KvCache } | undefined;
  const has: Ahead['has'] = (kind, marks) =>
    kept?.kind === kind && kept.marks.length === marks.length && kept.marks.every((mark, i) => mark === marks[i]);
  return {
    get bytes() {
      return kept?.cache.bytes ?? 0;
    },
    has,
    keep(kind, marks, copy) {
      try {
        kept = { kind, marks, cache: copy() };
      } catch {
        // There is no memory for a copy, which the next request then makes itself.
      }
    },
    take(kind, marks) {
      if (!has(kind, marks)) return undefined;
      const cache = kept?.cache;
      kept = undefined;
      return cache;
    },
    drop() {
      const bytes = kept?.cache.bytes ?? 0;
      kept?.cache.dispose();
      kept = undefined;
      return bytes;
    },
  };
}
