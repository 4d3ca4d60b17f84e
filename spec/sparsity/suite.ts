// What holds for every sparsity method, whatever it selects by.

import type { Selection, SparsityMethod, TowerView } from '../../src';
import { uniform } from '../../src/text/random';

export interface MethodCase {
  readonly make: () => SparsityMethod;
  /** Visual tokens kept of images with so many tokens; undefined when nothing is pruned. */
  readonly kept: ((tokens: readonly number[]) => number[] | 'any') | undefined;
  /** Rows retrieved of so many; undefined when everything is attended. */
  readonly retrieved: ((rows: number) => number) | undefined;
  /** How many are kept of all images together. */
  readonly keptInAll?: (tokens: readonly number[]) => number;
}

const SIZES: readonly (readonly number[])[] = [[1], [2], [9], [16, 16], [100], [25, 49, 9], [100, 100, 100]];

/** Images with seeded salience that sums to 1, with ties. */
export function towers(sizes: readonly number[], seed: number): TowerView[] {
  const random = uniform(seed);
  return sizes.map((tokens) => {
    const raw = Float32Array.from({ length: tokens }, () => 1 + Math.floor(random() * 50));
    const sum = raw.reduce((a, b) => a + b);
    const side = Math.sqrt(tokens);
    const salience = raw.map((value) => value / sum);
    return viewOf({ rows: side, cols: side }, salience);
  });
}

/** An image's view with these saliences, one for each layer, and nothing else. */
export function viewOf(grid: TowerView['grid'], ...saliences: Float32Array[]): TowerView {
  const none = { data: new Float32Array(), width: 0 };
  const salience = (i = 0): Float32Array => saliences[i] ?? new Float32Array();
  return { tokens: salience().length, grid, salience, keys: () => none, features: () => none, projected: () => none };
}

export function indicesOf(selection: Selection | undefined): Int32Array {
  if (selection instanceof Int32Array) return selection;
  return selection?.kept ?? new Int32Array();
}

function expectSelection(selection: Int32Array, n: number): void {
  const values = Array.from(selection);
  expect(values).toEqual([...new Set(values)].sort((a, b) => a - b));
  for (const value of values) expect(value >= 0 && value < n).toBe(true);
}

export function methodSuite(name: string, { make, kept, retrieved, keptInAll }: MethodCase): void {
  describe(`${name}: as every method`, () => {
    it('has a name and only the seams that it needs', () => {
      const method = make();
      expect(method.name).not.toBe('');
      expect([method.prune === undefined, method.retrieve === undefined]).toEqual([
        kept === undefined,
        retrieved === undefined,
      ]);
    });

    it.each(SIZES.map((sizes) => [sizes]))(
      'prunes images of %j tokens: ascending, within each, as many as budgeted',
      (sizes) => {
        const images = towers(sizes, 5);
        const selections = make().prune?.(images).map(indicesOf);
        if (selections === undefined) return expect(kept).toBeUndefined();
        expect(selections).toHaveLength(images.length);
        for (const [i, selection] of selections.entries()) expectSelection(selection, sizes[i] ?? 0);
        const counts = selections.map(({ length }) => length);
        const wanted = kept?.(sizes);
        if (wanted !== 'any') expect(counts).toEqual(wanted);
        if (keptInAll) expect(counts.reduce((a, b) => a + b)).toBe(keptInAll(sizes));
      },
    );

    it('retrieves ascending rows, as many as budgeted, in every layer', () => {
      const { retrieve } = make();
      if (retrieve === undefined) return expect(retrieved).toBeUndefined();
      for (const rows of [1, 2, 10, 40, 100])
        for (const layer of [0, 3]) {
          const relevance = towers([rows], rows + layer)[0]?.salience() ?? new Float32Array();
          const selection = retrieve(relevance, layer, []);
          expectSelection(selection, rows);
          expect(selection).toHaveLength(retrieved?.(rows) ?? -1);
        }
    });

    it('gives the same for the same, from a new instance too, and leaves its input as it is', () => {
      const images = towers([36, 64], 8);
      const before = images.map(({ salience }) => salience().slice());
      const method = make();
      const results = [method, method, make()].map((one) => ({
        pruned: one.prune?.(images),
        retrieved: one.retrieve?.(images[1]?.salience() ?? new Float32Array(), 1, []),
      }));
      expect(results[1]).toEqual(results[0]);
      expect(results[2]).toEqual(results[0]);
      expect(images.map(({ salience }) => salience())).toEqual(before);
    });
  });
}
