// Values within a budget of bytes, of which the least recently used are removed first.

export interface Lru<V> {
  /** Bytes and number of its values. */
  readonly bytes: number;
  readonly size: number;
  /** The value of a key, which counts as used now. */
  get(key: string): V | undefined;
  /** Adds a value in place of an older one, if it is within the budget alone; otherwise it is removed at once. */
  set(key: string, value: V, bytes: number): void;
  delete(key: string): void;
  /** The keys and values, the least recently used first. */
  entries(): IterableIterator<[string, V]>;
  /** Removes the least recently used value; returns its bytes, 0 if there is none. */
  evict(): number;
  clear(): void;
}

/** @param onRemove frees a value that is removed */
export function lru<V>(budget: number, onRemove: (value: V) => void = () => undefined): Lru<V> {
  // A Map keeps the order of insertion.
  const values = new Map<string, { readonly value: V; readonly bytes: number }>();
  let held = 0;
  const remove = (key: string): number => {
    const entry = values.get(key);
    if (entry === undefined) return 0;
    values.delete(key);
    held -= entry.bytes;
    onRemove(entry.value);
    return entry.bytes;
  };
  const evict = (): number => {
    const [oldest] = values.keys();
    return oldest === undefined ? 0 : remove(oldest);
  };
  return {
    get bytes() {
      return held;
    },
    get size() {
      return values.size;
    },
    get: (key) => {
      const entry = values.get(key);
      if (entry === undefined) return undefined;
      values.delete(key);
      values.set(key, entry);
      return entry.value;
    },
    set: (key, value, bytes) => {
      remove(key);
      if (bytes > budget) return onRemove(value);
      values.set(key, { value, bytes });
      held += bytes;
      while (held > budget) evict();
    },
    delete: (key) => {
      remove(key);
    },
    *entries() {
      for (const [key, { value }] of values) yield [key, value];
    },
    evict,
    clear: () => {
      for (const key of [...values.keys()]) remove(key);
    },
  };
}
