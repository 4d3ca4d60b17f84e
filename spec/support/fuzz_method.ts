// Seeded sparsity methods for the fuzzer of the public API, valid and invalid.

import * as api from '../../src';
import { junk, type Maker, pick, type Random, some, thrower } from './fuzz_values';

function indices(random: Random, n: number): unknown {
  const kept = Int32Array.from({ length: n }, (_, i) => i).filter(() => random() < 0.6);
  return random() < 0.85
    ? kept
    : pick<unknown>(random, [junk(random), Int32Array.of(n), Array.from(kept), Int32Array.of(2, 1)]);
}

function merged(random: Random, n: number, width: number): unknown {
  const kept = Int32Array.from({ length: n }, (_, i) => i).filter(() => random() < 0.6);
  const rows = new Float32Array(kept.length * width).fill(pick(random, [0.1, 0.1, 0.1, Number.NaN, 1e38]));
  return { kept, rows: random() < 0.9 ? rows : junk(random) };
}

/** A valid or invalid custom method. */
export function method(random: Random): unknown {
  if (random() < 0.1) return junk(random);
  if (random() < 0.5)
    return pick(random, api.METHODS).create({ prefillSparsity: random() * 0.99, decodeSparsity: random() * 0.99 });
  const group = (members: Readonly<Record<string, Maker>>, needed: Readonly<Record<string, Maker>>): Maker => {
    const required = Object.fromEntries(Object.entries(needed).map(([name, make]) => [name, make()]));
    return () => ({ ...(random() < 0.95 && required), ...some(random, members, 0.05) });
  };
  const parts: Readonly<Record<string, Maker>> = {
    positions: () => pick(random, ['original', 'compact']),
    prune: group(
      {
        taps: () => ({ salience: [pick(random, [-1, 0, 0.5, 99])], keys: [-1] }),
        rows: () => pick(random, ['features', 'projected']),
      },
      {
        select: () => (grids: readonly api.TowerView[]) =>
          grids.map((grid) =>
            random() < 0.2 ? merged(random, grid.tokens, grid.projected().width) : indices(random, grid.tokens),
          ),
      },
    ),
    drop: group(
      {
        scores: () => pick(random, ['previous', 'next']),
        raters: () => (question: api.Matrix) => indices(random, question.data.length / question.width),
      },
      {
        layers: () => [pick(random, [1, 2, 0.5, -1, 0])],
        select: () => (view: api.DropView) => indices(random, view.scores.length),
      },
    ),
    retrieve: group(
      { window: () => 1 + Math.floor(random() * 5), permanent: () => random() < 0.5 },
      {
        select: () => (relevance: Float32Array) => (random() < 0.02 ? thrower() : indices(random, relevance.length)),
      },
    ),
  };
  return { ...some(random, parts, 0.05), ...(random() < 0.97 && { name: 'fuzz' }) };
}
