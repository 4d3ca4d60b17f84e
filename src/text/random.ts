// A seeded generator of uniform numbers, for reproducible answers. Knows nothing about sampling. Not cryptographically secure.
// Source: xoshiro128** 1.1, seeded by splitmix (Blackman & Vigna, arXiv 1805.01407; prng.di.unimi.it) with the 32-bit finalizer of
// MurmurHash3.

/**
 * Uniform float64 in [0, 1) with 53 random bits per call, from a seed in [0, 2^53).
 * splitmix32 fills the 128-bit state from both halves of the seed, so that close seeds give independent streams.
 */
export function uniform(seed: number): () => number {
  const fill = splitmix32((seed >>> 0) ^ Math.imul(Math.floor(seed / 2 ** 32), 0x9e3779b9));
  const next = xoshiro128(fill(), fill(), fill(), fill());
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}

/** A stream of numbers that can be read ahead of its own reading. */
export interface Replayable {
  next(): number;
  /** A second reading from the present place on, which takes nothing from the first. Valid until `next` is called. */
  ahead(): () => number;
}

/** A stream that stores the numbers that were only read ahead. */
export function replayable(next: () => number): Replayable {
  const upcoming: number[] = [];
  return {
    next: () => upcoming.shift() ?? next(),
    ahead: () => {
      let at = 0;
      return () => {
        if (at === upcoming.length) upcoming.push(next());
        return upcoming[at++] as number;
      };
    },
  };
}

/** xoshiro128** 1.1: returns the next uint32 per call, from a state that is not all zero. */
export function xoshiro128(a: number, b: number, c: number, d: number): () => number {
  return () => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotate(d, 11);
    return result;
  };
}

function splitmix32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return mixed ^ (mixed >>> 16);
  };
}

function rotate(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}
