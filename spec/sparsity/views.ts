// What methods are shown in specs: hand-made or seeded images and decoder stages, and what is read of their selections.

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
    salience,
    keys: () => none,
    features: () => none,
    projected: () => none,
  };
}

export function matrixOf(...rows: readonly (readonly number[])[]): Matrix {
  return { data: Float32Array.from(rows.flat()), width: rows[0]?.length ?? 0 };
}

/** Seeded numbers from -1 to 1. */
export function noiseMatrix(rows: number, width: number, random: () => number): Matrix {
  return { data: Float32Array.from({ length: rows * width }, () => 2 * random() - 1), width };
}

/** Images with seeded numbers. Salience sums to 1 and has ties; `equal`: nothing differs from token to token. */
export function towers(sizes: readonly number[], seed: number, equal = false): TowerView[] {
  const random = uniform(seed);
  return sizes.map((tokens) => {
    const saliences = [0, 1, 2].map(() => {
      const raw = Float32Array.from({ length: tokens }, () => (equal ? 1 : 1 + Math.floor(random() * 50)));
      const sum = raw.reduce((a, b) => a + b);
      return raw.map((value) => value / sum);
    });
    const flat = (rows: number, width: number): Matrix => ({ data: new Float32Array(rows * width).fill(0.5), width });
    const make = (rows: number, width: number) => (equal ? flat(rows, width) : noiseMatrix(rows, width, random));
    const [keys, features, projected] = [make(2 * tokens, 3), make(tokens, 5), make(tokens, 4)];
    const side = Math.max(1, Math.floor(Math.sqrt(tokens)));
    const grid = { t: 1, h: side, w: tokens / side };
    return {
      ...viewOf(grid, ...saliences),
      keys: () => keys,
      features: () => features,
      projected: () => projected,
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

/** A method's drops on the way through a decoder, with seeded scores that have ties; and the rows that live in each layer. */
export function dropThrough(method: SparsityMethod, total: number, layers: number, seed: number, equal = false) {
  const random = uniform(seed);
  const drops: Dropped[] = [];
  const living: number[] = [];
  let alive = total;
  for (const { to, drop } of dropStages(method, [0], layers)) {
    while (living.length < to) living.push(alive);
    if (drop === undefined) continue;
    const scores = Float32Array.from({ length: alive }, () => (equal ? 0.25 : Math.floor(random() * 30) / 1000));
    const hidden = noiseMatrix(alive, 6, random);
    const view = { ...drop, total, scores, hidden: () => hidden };
    const selection = method.drop?.select(view) ?? new Int32Array();
    drops.push({ view, selection });
    alive = indicesOf(selection).length;
  }
  return { drops, living };
}
