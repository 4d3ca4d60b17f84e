// Views for methods in specs: hand-made or seeded images and decoder stages, and helpers to read selections.

import type { DropView, Matrix, Selection, SparsityMethod, TowerView } from '../../src';
import { dropStages } from '../../src/session/drop';
import { uniform } from '../../src/text/random';

/** An image with these saliences, one for each layer, and of the rest what is given. */
export function viewOf(grid: TowerView['grid'], ...saliences: Float32Array[]): TowerView {
  const none = { data: new Float32Array(), width: 0 };
  const salience = (i = 0): Float32Array => saliences[i] ?? new Float32Array();
  return {
    medium: 0,
    tokens: salience().length,
    grid,
    share: 1,
    salience,
    keys: () => none,
    features: () => none,
    projected: () => none,
    question: () => none,
  };
}

export function matrixOf(...rows: readonly (readonly number[])[]): Matrix {
  return { data: Float32Array.from(rows.flat()), width: rows[0]?.length ?? 0 };
}

/** Seeded numbers from -1 to 1. */
export function noiseMatrix(rows: number, width: number, random: () => number): Matrix {
  return { data: Float32Array.from({ length: rows * width }, () => 2 * random() - 1), width };
}

/** A grid in specs: t planes of h x w tokens of the turn's medium-th medium. */
export interface Shape {
  readonly t: number;
  readonly h: number;
  readonly w: number;
  readonly medium: number;
}

/** A picture of so many tokens, as square as it can be with whole rows. */
export function pictureOf(tokens: number, medium = 0): Shape {
  let h = Math.max(1, Math.floor(Math.sqrt(tokens)));
  while (tokens % h !== 0) h--;
  return { t: 1, h, w: tokens / h, medium };
}

/** Pictures of so many tokens with seeded numbers. */
export function towers(sizes: readonly number[], seed: number, equal = false): TowerView[] {
  return grids(
    sizes.map((tokens, i) => pictureOf(tokens, i)),
    seed,
    equal,
  );
}

/** Grids with seeded numbers. The salience of a plane sums to 1 and has ties; `equal`: nothing differs from token to token. */
export function grids(shapes: readonly Shape[], seed: number, equal = false): TowerView[] {
  const random = uniform(seed);
  return shapes.map(({ t, h, w, medium }) => {
    const tokens = t * h * w;
    const saliences = [0, 1, 2].map(() => {
      const raw = Float32Array.from({ length: tokens }, () => (equal ? 1 : 1 + Math.floor(random() * 50)));
      return raw.map((value, i) => {
        const first = i - (i % (h * w));
        return value / raw.subarray(first, first + h * w).reduce((a, b) => a + b);
      });
    });
    const flat = (rows: number, width: number): Matrix => ({ data: new Float32Array(rows * width).fill(0.5), width });
    const make = (rows: number, width: number) => (equal ? flat(rows, width) : noiseMatrix(rows, width, random));
    const [keys, features, projected] = [make(2 * tokens, 3), make(tokens, 5), make(tokens, 4)];
    const question = noiseMatrix(6, 4, uniform(seed + 1));
    return {
      ...viewOf({ t, h, w }, ...saliences),
      medium,
      keys: () => keys,
      features: () => features,
      projected: () => projected,
      question: () => question,
    };
  });
}

export function indicesOf(selection: Selection | undefined): Int32Array {
  if (selection instanceof Int32Array) return selection;
  return selection?.kept ?? new Int32Array();
}

export interface Dropped {
  readonly view: DropView;
  readonly selection: Selection;
}

/** A method's drops on the way through a decoder, with seeded scores that have ties; and the rows that are kept in each layer. */
export function dropThrough(method: SparsityMethod, total: number, layers: number, seed: number, equal = false) {
  const random = uniform(seed);
  const drops: Dropped[] = [];
  const kept: number[] = [];
  let left = total;
  for (const { to, drop } of dropStages(method, [0], { layers })) {
    while (kept.length < to) kept.push(left);
    if (drop === undefined) continue;
    const scores = Float32Array.from({ length: left }, () => (equal ? 0.25 : Math.floor(random() * 30) / 1000));
    const hidden = noiseMatrix(left, 6, random);
    const view = { ...drop, total, scores, hidden: () => hidden };
    const selection = method.drop?.select(view) ?? new Int32Array();
    drops.push({ view, selection });
    left = indicesOf(selection).length;
  }
  return { drops, kept };
}
