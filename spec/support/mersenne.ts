// The generators of the Python specification of scenes: `random.Random(seed)`, and the uniforms of `torch.Generator().manual_seed(seed)`
// on the CPU. Each is a Mersenne Twister (MT19937, Matsumoto and Nishimura), seeded differently.

import type { Random } from '../../src/scenes/random';

const N = 624;
const M = 397;

/** Returns the next uint32 per call. */
type Bits = () => number;

/** The state of `init_genrand`. */
function stateOf(seed: number): Uint32Array {
  const state = new Uint32Array(N);
  state[0] = seed;
  for (let i = 1; i < N; i++) {
    const before = state[i - 1] as number;
    state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
  }
  return state;
}

/** The state of `init_by_array([seed])`, with which Python seeds by an integer below 2^32. */
function stateOfKey(seed: number): Uint32Array {
  const state = stateOf(19650218);
  let i = 1;
  const mix = (factor: number, plus: () => number): void => {
    const before = state[i - 1] as number;
    state[i] = ((state[i] as number) ^ Math.imul(before ^ (before >>> 30), factor)) + plus();
    if (++i < N) return;
    state[0] = state[N - 1] as number;
    i = 1;
  };
  for (let k = 0; k < N; k++) mix(1664525, () => seed);
  for (let k = 1; k < N; k++) mix(1566083941, () => -i);
  state[0] = 0x80000000;
  return state;
}

function twister(state: Uint32Array): Bits {
  let at = N;
  const twist = (): void => {
    for (let k = 0; k < N; k++) {
      const mixed = ((state[k] as number) & 0x80000000) | ((state[(k + 1) % N] as number) & 0x7fffffff);
      state[k] = (state[(k + M) % N] as number) ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    at = 0;
  };
  return () => {
    if (at === N) twist();
    let y = state[at++] as number;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** `random.Random(seed)`: `random`, `randrange`, `choice` and `sample` of CPython. */
export function pythonRandom(seed: number): Random {
  const bits = twister(stateOfKey(seed));
  const below = (n: number): number => {
    const width = 32 - Math.clz32(n);
    let drawn = n;
    while (drawn >= n) drawn = bits() >>> (32 - width);
    return drawn;
  };
  return {
    next: () => ((bits() >>> 5) * 2 ** 26 + (bits() >>> 6)) / 2 ** 53,
    below,
    choice: (list) => list[below(list.length)] as (typeof list)[number],
    sample: (n, k) => pythonSample(n, k, below),
  };
}

/** A pool of all indices if that is smaller than a set of the chosen ones, as CPython decides. */
function pythonSample(n: number, k: number, below: (n: number) => number): number[] {
  const setSize = 21 + (k > 5 ? 4 ** Math.ceil(Math.log(k * 3) / Math.log(4)) : 0);
  if (n > setSize) {
    const chosen = new Set<number>();
    while (chosen.size < k) chosen.add(below(n));
    return [...chosen];
  }
  const pool = Array.from({ length: n }, (_, i) => i);
  return Array.from({ length: k }, (_, i) => {
    const j = below(n - i);
    const drawn = pool[j] as number;
    pool[j] = pool[n - i - 1] as number;
    return drawn;
  });
}

/**
 * The draws of scene.py's `render` for a batch of frames, one stream for each frame: torch.rand and torch.randint draw every tensor for
 * the whole batch, frame by frame. `seed` continues from film to film.
 */
export function torchFrames(seed: number): (frames: number, uniforms: readonly number[], cells: number) => Random[] {
  const bits = twister(stateOf(seed));
  return (frames, uniforms, cells) => {
    const draw = (size: number): Uint32Array[] =>
      Array.from({ length: frames }, () => Uint32Array.from({ length: size }, bits));
    const [blocks, variants, jitter] = [uniforms.map(draw), draw(cells), draw(3 * cells)];
    return variants.map((ofCells, frame) => {
      const reals = [...blocks, jitter].map((block) => block[frame] as Uint32Array);
      return streamOf(reals, ofCells);
    });
  };
}

/** 24 bits for a uniform f32; the remainder for an integer. */
function streamOf(reals: readonly Uint32Array[], integers: Uint32Array): Random {
  const values = reals.flatMap((block) => [block]);
  let [block, at, cell] = [0, 0, 0];
  const next = (): number => {
    while (at === values[block]?.length) [block, at] = [block + 1, 0];
    return ((values[block]?.[at++] ?? Number.NaN) & 0xffffff) / 2 ** 24;
  };
  const below = (n: number): number => (integers[cell++] ?? Number.NaN) % n;
  const refuse = (): never => {
    throw new Error('Expected no choice among pixels.');
  };
  return { next, below, choice: refuse, sample: refuse };
}
