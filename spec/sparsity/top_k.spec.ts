// Exact top-k and the rounding of budgets, on numbers small enough to check by hand.

import { budget, topK } from '../../src';
import { roundHalfEven } from '../../src/sparsity/top_k';
import { uniform } from '../../src/text/random';

const scores = (...values: number[]): Float32Array => Float32Array.from(values);
const top = (k: number, ...values: number[]): number[] => Array.from(topK(scores(...values), k));

describe('topK', () => {
  it('gives the largest, in ascending order of index', () => {
    expect(top(2, 0.1, 0.9, 0.2, 0.8)).toEqual([1, 3]);
    expect(top(3, 5, 1, 4, 2, 3)).toEqual([0, 2, 4]);
    expect(top(1, -3, -1, -2)).toEqual([1]);
  });

  it('takes the lower index of equal scores, also of 0 and -0', () => {
    expect(top(2, 1, 1, 1, 1)).toEqual([0, 1]);
    expect(top(3, 7, 5, 5, 5, 9)).toEqual([0, 1, 4]);
    expect(top(1, -0, 0)).toEqual([0]);
  });

  it('gives everything for k = n and above, nothing for 0', () => {
    expect(top(3, 3, 1, 2)).toEqual([0, 1, 2]);
    expect(top(9, 3, 1, 2)).toEqual([0, 1, 2]);
    expect(top(0, 3, 1, 2)).toEqual([]);
    expect(top(0)).toEqual([]);
    expect(top(4)).toEqual([]);
  });

  it('ranks infinities', () => {
    expect(top(2, 1, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY)).toEqual([0, 2]);
    expect(top(2, Number.POSITIVE_INFINITY, 1, Number.POSITIVE_INFINITY)).toEqual([0, 2]);
    expect(top(1, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY)).toEqual([0]);
  });

  it.each([1, 2, 9])('refuses NaN, k = %i of 3', (k) => {
    expect(() => top(k, 1, Number.NaN, 2)).toThrow(
      expect.objectContaining({ code: 'ERR_SCORES', message: expect.stringMatching(/NaN at 1 of 3/) }),
    );
  });

  it('equals a full sort with many ties', () => {
    const random = uniform(11);
    for (let n = 1; n < 60; n++) {
      const values = Float32Array.from({ length: n }, () => Math.floor(random() * 6) / 4);
      const k = Math.floor(random() * (n + 1));
      const order = Array.from(values.keys()).sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b);
      expect(Array.from(topK(values, k))).toEqual(order.slice(0, k).sort((a, b) => a - b));
    }
  });

  it('equals a full sort of numbers that differ in their last bits only, of both signs', () => {
    const random = uniform(12);
    for (const n of [2, 255, 1000]) {
      const bits = Int32Array.from(
        { length: n },
        () => Math.floor(random() * 300) + (random() < 0.5 ? 0x3f800000 : -0x40800000),
      );
      const values = new Float32Array(bits.buffer);
      const order = Array.from(values.keys()).sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b);
      for (const k of [1, n >> 2, n >> 1, n - 1])
        expect(Array.from(topK(values, k))).toEqual(order.slice(0, k).sort((a, b) => a - b));
    }
  });

  it('does not change the scores', () => {
    const values = scores(3, 1, 2);
    topK(values, 2);
    expect(values).toEqual(scores(3, 1, 2));
  });
});

describe('budgets', () => {
  it('round half to even', () => {
    expect([0.5, 1.5, 2.5, 3.5, 4.5].map(roundHalfEven)).toEqual([0, 2, 2, 4, 4]);
    expect([0.49, 0.51, 2.4999, 2.5001, 7].map(roundHalfEven)).toEqual([0, 1, 2, 3, 7]);
  });

  it.each([
    [100, 0.6, 40],
    [40, 0.75, 10],
    [9, 0.5, 4],
    [25, 0.5, 12],
    [3, 0.5, 2],
    [5, 0.5, 2],
    [7, 0.5, 4],
    [196, 0.45, 108],
    [10, 0.75, 2],
    [10, 0, 10],
    [0, 0.6, 0],
    [1, 0.999, 1],
    [1, 0.5, 1],
    [100, 0.999, 1],
  ])('of %i at %f stay %i', (n, sparsity, expected) => {
    expect(budget(n, sparsity)).toBe(expected);
  });
});
