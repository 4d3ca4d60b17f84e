// Formulas of what is dropped between layers and retrieved, on cases small enough to do by hand.

import { type DropView, fastV, pyramidDrop, quest, type Selection, snapKv, sparseVlm, sparseVlmPlus } from '../../src';
import { clustersOf, recycle } from '../../src/sparsity/density_peaks';
import { raters } from '../../src/sparsity/sparse_vlm';
import { stageBudget } from '../../src/sparsity/stages';
import { dropThrough, indicesOf, matrixOf } from './views';

const f32 = (...values: number[]): Float32Array => Float32Array.from(values);
const rowsOf = (selection: Selection | undefined): number[] | undefined =>
  selection instanceof Int32Array || selection === undefined ? undefined : Array.from(selection.rows);
const indices = (selection: Selection | undefined): number[] => Array.from(indicesOf(selection));

describe('drops between layers', () => {
  const stages = (method: Parameters<typeof dropThrough>[0], total: number, layers: number) =>
    dropThrough(method, total, layers, 2).kept;

  it("have the authors' counts at the authors' means", () => {
    expect(stages(fastV(), 576, 32)).toEqual([...Array(2).fill(576), ...Array(30).fill(288)]);
    expect(stages(pyramidDrop(), 576, 32)).toEqual([576, 288, 144, 72].flatMap((n) => Array(8).fill(n)));
    const counts = [...Array(3).fill(576), ...Array(4).fill(300), ...Array(9).fill(200)];
    expect(stages(sparseVlm(), 576, 32)).toEqual([...counts, ...Array(16).fill(110)]);
    expect(stages(sparseVlmPlus(), 576, 32)).toEqual([...counts, ...Array(16).fill(118)]);
  });

  it('scale to the depth, with distinct layers', () => {
    const starts = (method: Parameters<typeof dropThrough>[0], layers: number) =>
      dropThrough(method, 10, layers, 2).drops[0]?.view.starts;
    expect([4, 24, 28, 32, 40, 80].map((layers) => starts(fastV(), layers))).toEqual([[1], [2], [2], [2], [3], [5]]);
    expect([2, 3, 4, 24].map((layers) => starts(pyramidDrop(), layers))).toEqual([[1], [1, 2], [1, 2, 3], [6, 12, 18]]);
    expect([4, 32].map((layers) => starts(sparseVlm(), layers))).toEqual([
      [1, 2, 3],
      [3, 7, 16],
    ]);
    expect(starts(pyramidDrop({ layers: [2, 3, 0.9] }), 8)).toEqual([2, 3, 7]);
    expect(starts(fastV({ layer: 3 }), 4)).toEqual([3]);
    expect(starts(fastV({ layer: -1 }), 4)).toEqual([3]);
  });

  it('keep the mean over layers, and one row if that is impossible', () => {
    const view: DropView = {
      stage: 0,
      starts: [1],
      layers: 4,
      total: 100,
      scores: new Float32Array(100),
      hidden: () => matrixOf(),
    };
    expect(stageBudget(view, [0.5], 1)).toBe(100);
    expect(stageBudget(view, [0.5], 0.7)).toBe(60);
    expect(stageBudget(view, [0.5], 0.25)).toBe(1);
    expect(stageBudget(view, [0.5], 0.1)).toBe(1);
  });

  it('keep the rows of the highest scores', () => {
    const view: DropView = {
      stage: 0,
      starts: [1],
      layers: 4,
      total: 4,
      scores: f32(0.1, 0.4, 0.4, 0.2),
      hidden: () => matrixOf(),
    };
    // Three layers of 2: (4 + 3 * 2) / 4.
    expect(indices(fastV({ prefillSparsity: 1 - 2.5 / 4 }).drop?.select(view))).toEqual([1, 2]);
  });
});

describe('SparseVLM', () => {
  it('takes as raters the words whose similarity to visual tokens is above average', () => {
    const words = matrixOf([4, 0], [0, 4], [0, 0]);
    expect(Array.from(raters(words, matrixOf([1, 0], [2, 0])))).toEqual([0]);
    expect(Array.from(raters(words, matrixOf([1, 0], [0, 1])))).toEqual([0, 1]);
    // All scores are equal, so none is above the mean.
    expect(Array.from(raters(matrixOf([1], [1]), matrixOf([1])))).toEqual([]);
  });

  it('finds clusters around density peaks', () => {
    const points = matrixOf([0], [0.1], [0.2], [9], [9.1], [5]);
    const found = clustersOf(points, 2).map(({ center, of }) => [center, [...of].sort()]);
    expect(found).toEqual([
      [0, [0, 1, 2]],
      [3, [3, 4, 5]],
    ]);
  });

  it('recycles a pool of dropped rows as the means of clusters at their centers', () => {
    const rows = matrixOf([100], [0], [1], [2], [50], [52]);
    const merged = recycle(rows, Int32Array.of(0), Int32Array.of(1, 2, 3, 4, 5), 2);
    expect(indices(merged)).toHaveLength(3);
    expect(rowsOf(merged)).toEqual([100, 1, 51]);
  });
});

describe('retrieval', () => {
  it('SnapKV pools over five neighbors, zeros beyond the ends', () => {
    const relevance = f32(0, 0, 9, 0, 0, 0, 0, 0, 5, 5);
    // Means: 9/5 at 0 to 4, 0 at 5, 1 at 6, 2 at 7 to 9.
    const kept = (n: number) =>
      Array.from(snapKv({ decodeSparsity: 1 - n / 10 }).retrieve?.select(relevance, 0, []) ?? []);
    expect(kept(3)).toEqual([7, 8, 9]);
    expect(kept(5)).toEqual([0, 1, 7, 8, 9]);
    expect(kept(9)).toEqual([0, 1, 2, 3, 4, 6, 7, 8, 9]);
    expect(snapKv()).toMatchObject({ retrieve: { window: 32, permanent: true } });
  });

  it('Quest takes whole rows of the grid by their maximum, the last one partially', () => {
    const places = [0, 0, 0, 1, 1, 1, 1].map((row, i) => ({ medium: i < 5 ? 0 : 1, grid: 0, t: 0, row, col: i }));
    // Pages: 0-2 (best 0.3), 3-4 (best 0.9), 5-6 of another image (best 0.5).
    const relevance = f32(0.3, 0.1, 0.2, 0.9, 0, 0.4, 0.5);
    const kept = (n: number) =>
      Array.from(quest({ decodeSparsity: 1 - n / 7 }).retrieve?.select(relevance, 0, places) ?? []);
    expect([1, 2, 3, 4, 6].map(kept)).toEqual([[3], [3, 4], [3, 4, 6], [3, 4, 5, 6], [0, 2, 3, 4, 5, 6]]);
  });
});
