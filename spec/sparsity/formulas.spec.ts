// Formulas of what is pruned after the tower, and of what is composed, on cases small enough to do by hand.

import {
  compose,
  divPrune,
  fastV,
  hiPrune,
  pruMerge,
  pruMergePlus,
  random,
  type Selection,
  snapKv,
  sparseVila,
  type TowerView,
  uniform,
  visionZip,
  vScan,
} from '../../src';
import { dropThrough, indicesOf, matrixOf, viewOf } from './views';

const f32 = (...values: number[]): Float32Array => Float32Array.from(values);
const rowsOf = (selection: Selection | undefined): number[] | undefined =>
  selection instanceof Int32Array || selection === undefined ? undefined : Array.from(selection.rows);
const indices = (selection: Selection | undefined): number[] => Array.from(indicesOf(selection));
const all16 = Array.from({ length: 16 }, (_, i) => i);
/** One row of tokens with these saliences; keys, features and projected are the same rows unless given. */
function strip(
  salience: readonly number[],
  parts: Partial<Record<'keys' | 'features' | 'projected', number[][]>>,
): TowerView {
  const view = viewOf({ t: 1, h: 1, w: salience.length }, f32(...salience));
  const made = Object.entries(parts).map(([name, rows]) => [name, () => matrixOf(...rows)]);
  return { ...view, ...Object.fromEntries(made) };
}

describe('VisionZip', () => {
  // Kept 4 of 8, half of them contextual. Dominant: 0 and 5. Others 1 2 3 4 6 7, step 3: targets 1 and 4.
  const salience = [0.4, 0.05, 0.04, 0.03, 0.02, 0.4, 0.03, 0.03];
  const features = [[10], [1], [2], [3], [4], [50], [6], [7]];
  // 2 and 6 point as 1 does, 3 and 7 as 4 does.
  const keys = [
    [1, 1],
    [1, 0],
    [2, 0],
    [0, 5],
    [0, 1],
    [1, 1],
    [3, 0.1],
    [0.1, 2],
  ];

  it('merges every other token into the target with the most similar keys: h + mean', () => {
    const [one] =
      visionZip({ prefillSparsity: 0.5, contextual: 0.5 }).prune?.select([strip(salience, { keys, features })]) ?? [];
    expect(indices(one)).toEqual([0, 1, 4, 5]);
    expect(rowsOf(one)).toEqual([10, 1 + (2 + 6) / 2, 4 + (3 + 7) / 2, 50]);
  });

  it('takes the mean of the heads for a key', () => {
    // Two heads of width 1 whose mean has the opposite sign of their first.
    const twoHeads = keys.flatMap(([a = 0, b = 0]) => [
      [2 * a + 1, 2 * b],
      [-1, 0],
    ]);
    const view = { ...strip(salience, { features }), keys: () => matrixOf(...twoHeads) };
    const [one] = visionZip({ prefillSparsity: 0.5, contextual: 0.5 }).prune?.select([view]) ?? [];
    expect(rowsOf(one)).toEqual([10, 5, 9, 50]);
  });

  it('without contextual tokens only selects', () => {
    const [one] = visionZip({ prefillSparsity: 0.75, contextual: 0 }).prune?.select([strip(salience, {})]) ?? [];
    expect(one).toEqual(Int32Array.of(0, 5));
  });
});

describe('PruMerge', () => {
  const salience = [0.5, 0.2, 0.1, 0.1, 0.1];
  const features = [[1], [10], [100], [1000], [10000]];
  const keys = [
    [1, 0],
    [0, 1],
    [1, 1],
    [2, 1],
    [0, 3],
  ];

  it('adds its nearest tokens to each kept token, weighted by attention, and one token for all pruned tokens', () => {
    const [one] = pruMerge({ prefillSparsity: 0.4 }).prune?.select([strip(salience, { keys, features })]) ?? [];
    // Salient 0 and 1; pruned 2 3 4, the first of which stands for all. Fewer than 32 others: all are near.
    expect(indices(one)).toEqual([0, 1, 2]);
    const rows = rowsOf(one) ?? [];
    expect(rows[0]).toBeCloseTo(1 + 0.2 * 10 + 0.1 * (100 + 1000 + 10000), 3);
    expect(rows[1]).toBeCloseTo(10 + 0.5 * 1 + 0.1 * (100 + 1000 + 10000), 3);
    expect(rows[2]).toBeCloseTo(0.1 * (100 + 1000 + 10000), 3);
  });

  it('absorbs at most the 32 nearest tokens', () => {
    const n = 40;
    // Token 0 is the salient one. Tokens 1 to 32 point its way, the others away.
    const many = Array.from({ length: n }, (_, i) => (i === 0 ? 1 : 0.5));
    const directions = Array.from({ length: n }, (_, i) => (i <= 32 ? [1, i / 100] : [-1, 0]));
    const view = strip(many, { keys: directions, features: many.map((_, i) => [i]) });
    const [one] = pruMerge({ prefillSparsity: 0.95 }).prune?.select([view]) ?? [];
    const sum = 1 + 39 * 0.5;
    expect(indices(one)).toEqual([0, 1]);
    expect(rowsOf(one)?.[0]).toBeCloseTo(((0.5 / sum) * (32 * 33)) / 2, 4);
    expect(rowsOf(one)?.[1]).toBeCloseTo(((0.5 / sum) * (39 * 40)) / 2, 4);
  });

  it('without a ratio keeps the outliers: a > Q3 + 1.5 (Q3 - Q1)', () => {
    const flat = [0.3, 0.3, ...Array.from({ length: 18 }, (_, i) => 0.02 + i / 1e4)];
    const view = strip(flat, { keys: flat.map((s) => [s]), features: flat.map((s) => [s]) });
    expect(indices(pruMerge().prune?.select([view])[0])).toEqual([0, 1, 19]);
    // Each has three evenly spread tokens.
    expect(indices(pruMergePlus().prune?.select([view])[0])).toHaveLength(2 * 4 + 1);
  });

  it('+ spreads three of four kept tokens evenly over the rest', () => {
    const flat = Array.from({ length: 18 }, (_, i) => (i < 2 ? 0.3 : 0.02));
    const view = strip(flat, { keys: flat.map((s) => [s]), features: flat.map((s) => [s]) });
    // Nine kept: 2 salient, 6 of the other 16 in the middle of their sixths, and the best pruned one.
    expect(indices(pruMergePlus({ prefillSparsity: 0.5 }).prune?.select([view])[0])).toEqual([
      0, 1, 2, 3, 6, 8, 11, 14, 16,
    ]);
  });
});

describe('DivPrune', () => {
  const angle = (degrees: number): number[] => [
    Math.cos((degrees * Math.PI) / 180),
    Math.sin((degrees * Math.PI) / 180),
  ];
  it('starts with the most isolated token and adds the one farthest from those selected', () => {
    const view = strip([1, 1, 1, 1, 1], { projected: [0, 10, 20, 100, 160].map(angle) });
    const kept = (n: number) => indices(divPrune({ prefillSparsity: 1 - n / 5 }).prune?.select([view])[0]);
    // Nearest neighbors at 10, 10, 10, 60, 60 degrees: 100 first (index 3); from it 0 is farthest; then 160.
    expect([1, 2, 3, 4].map(kept)).toEqual([[3], [0, 3], [0, 3, 4], [0, 2, 3, 4]]);
  });
});

describe('HiPrune', () => {
  it('keeps anchors, their neighbors inside the grid, then registers', () => {
    const grid = { t: 1, h: 4, w: 5 };
    const object = f32(...Array.from({ length: 20 }, (_, i) => (i === 9 ? 0.5 : 0.01)));
    const deep = f32(...Array.from({ length: 20 }, (_, i) => (i + 1) / 210));
    // T = 10, alpha 0.5: one anchor, 9 = (1, 4) at the right edge; buffers 4, 8, 14; 10 is in the next row. Registers from the end.
    const [one] = hiPrune({ prefillSparsity: 0.5, alpha: 0.5 }).prune?.select([viewOf(grid, object, deep)]) ?? [];
    expect(indices(one)).toEqual([4, 8, 9, 13, 14, 15, 16, 17, 18, 19]);
  });
});

describe('neighborhoods', () => {
  /** Two frames of 2 x 4; the last token of the first and the first of the second are neighbors in memory only. */
  const grid = { t: 2, h: 2, w: 4 };
  const peak = (at: number) => f32(...Array.from({ length: 16 }, (_, i) => (i === at ? 0.9 : 0.01 + i / 1000)));

  it("HiPrune's buffers do not cross frames", () => {
    const [one] = hiPrune({ prefillSparsity: 0.5, alpha: 0.9 }).prune?.select([viewOf(grid, peak(4), peak(15))]) ?? [];
    // In the first frame anchor 4 = (1, 0) has the buffers 0 and 5, then register 7; in the second anchor 15 has 11 and 14, then 13.
    expect(indices(one)).toEqual([0, 4, 5, 7, 11, 13, 14, 15]);
  });

  it("VScan's windows do not cross frames", () => {
    const view = { ...viewOf(grid, peak(4), peak(15)), projected: () => matrixOf(...all16.map((i) => [i + 1])) };
    const [one] = vScan({ prefillSparsity: 1 - 0.5 / 1.5 }).prune?.select([view]) ?? [];
    expect(indices(one).filter((i) => i < 8)).toHaveLength(4);
    expect(indices(one)).toContain(4);
    // Every row is a mean of rows of its own frame, 1 to 8 or 9 to 16.
    expect((rowsOf(one) ?? []).map((value) => value > 8.5)).toEqual([...Array(4).fill(false), ...Array(4).fill(true)]);
  });
});

describe('VScan', () => {
  it('selects half by windows, half by the deep layer, and averages the rest into the most similar', () => {
    const grid = { t: 1, h: 2, w: 8 };
    // Two windows of 2 x 4. Locally the three best lie in the first, but a window may give one; globally 15 and 14 lead.
    const local = f32(...Array.from({ length: 16 }, (_, i) => [0.9, 0.8, 0.7, 0.1, 0.05, 0.6][i] ?? 0));
    const deep = f32(...Array.from({ length: 16 }, (_, i) => i / 120));
    const projected = Array.from({ length: 16 }, (_, i) => (i < 8 ? [i + 1, 0] : [0, i + 1]));
    const view = { ...viewOf(grid, local, deep), projected: () => matrixOf(...projected) };
    const [one] = vScan({ prefillSparsity: 1 - 0.25 / 1.5 }).prune?.select([view]) ?? [];
    expect(indices(one)).toEqual([0, 5, 14, 15]);
    // All that point as 0 and 5 do go to the first of them, the others to 14.
    expect(rowsOf(one)).toEqual([
      Math.fround((1 + 2 + 3 + 4 + 5 + 7 + 8) / 7),
      0,
      6,
      0,
      0,
      (9 + 10 + 11 + 12 + 13 + 14 + 15) / 7,
      0,
      16,
    ]);
  });

  it("has the authors' counts: 96 of 576, then 32 from half of 32 layers on", () => {
    const method = vScan();
    const view = viewOf({ t: 1, h: 24, w: 24 }, new Float32Array(576), new Float32Array(576));
    const [one] =
      method.prune?.select([{ ...view, projected: () => matrixOf(...Array.from({ length: 576 }, () => [1])) }]) ?? [];
    expect(indices(one)).toHaveLength(96);
    const { kept } = dropThrough(method, 96, 32, 1);
    expect([kept[0], kept[15], kept[16], kept[31]]).toEqual([96, 96, 32, 32]);
  });
});

describe('baselines', () => {
  it('uniform takes the middle of every part', () => {
    const kept = (sparsity: number) =>
      indices(uniform({ prefillSparsity: sparsity }).prune?.select([strip(Array(8).fill(1), {})])[0]);
    expect([0.75, 0.5, 0].map(kept)).toEqual([
      [2, 6],
      [1, 3, 5, 7],
      [0, 1, 2, 3, 4, 5, 6, 7],
    ]);
  });

  it('random draws anew for each image, layer and seed', () => {
    const view = strip(Array(100).fill(1), {});
    const draw = (seed: number) => random({ prefillSparsity: 0.5, decodeSparsity: 0.5, seed });
    const [a, b] = draw(1).prune?.select([view, view]) ?? [];
    expect(indices(a)).not.toEqual(indices(b));
    expect(indices(draw(2).prune?.select([view])[0])).not.toEqual(indices(a));
    const rows = new Float32Array(100);
    expect(draw(1).retrieve?.select(rows, 0, [])).not.toEqual(draw(1).retrieve?.select(rows, 1, []));
  });
});

describe('compose', () => {
  it('takes prune and drop of the first and retrieve of the second', () => {
    const both = compose(vScan(), snapKv());
    expect([both.name, both.prune?.rows]).toEqual(['vscan+snapkv', 'projected']);
    expect(both.retrieve).toMatchObject({ permanent: true, window: 32 });
    expect([both.prune, both.drop, both.retrieve].map((group) => typeof group?.select)).toEqual(
      Array(3).fill('function'),
    );
    const alone = compose(sparseVila(), fastV());
    expect(Object.keys(alone).sort()).toEqual(['name', 'positions', 'prune']);
    expect(alone.prune?.taps).toEqual({ salience: [-1] });
  });
});
