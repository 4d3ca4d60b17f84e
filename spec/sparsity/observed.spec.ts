// A watched method chooses as it does unwatched, and shows what it was shown.

import { dense, observed, type SparsityMethod, sparseVila } from '../../src';
import { towers } from './suite';

const images = towers([9, 16], 4);
const relevance = towers([12], 7)[0]?.salience ?? new Float32Array();

describe('observed', () => {
  it('chooses as the method itself', () => {
    const inner = sparseVila({ positions: 'compact', salienceLayer: -2 });
    const { method } = observed(inner);
    expect(method).toMatchObject({ name: 'sparsevila', positions: 'compact', salienceLayer: -2 });
    expect(method.prune?.(images)).toEqual(inner.prune?.(images));
    expect(method.retrieve?.(relevance, 2)).toEqual(inner.retrieve?.(relevance, 2));
  });

  it('keeps everything where the method has no seam', () => {
    const retrieving: SparsityMethod = { name: 'retrieving', retrieve: () => Int32Array.of(3) };
    for (const inner of [dense(), retrieving]) {
      const { method } = observed(inner);
      expect(method.prune?.(images).map((kept) => [...kept])).toEqual([[...Array(9).keys()], [...Array(16).keys()]]);
      expect([...(method.retrieve?.(relevance, 0) ?? [])]).toEqual(inner === retrieving ? [3] : [...relevance.keys()]);
    }
  });

  it('gives the relevance of the last turn, which later turns leave as it is', () => {
    const watched = observed(dense());
    const turn = (scale: number): void => {
      for (let layer = 0; layer < 3; layer++) watched.method.retrieve?.(Float32Array.of(scale, layer), layer);
    };
    expect(watched.relevance()).toEqual([]);
    turn(1);
    const first = watched.relevance();
    turn(2);
    expect(first.map((layer) => [...layer])).toEqual([
      [1, 0],
      [1, 1],
      [1, 2],
    ]);
    expect(watched.relevance().map((layer) => [...layer])).toEqual([
      [2, 0],
      [2, 1],
      [2, 2],
    ]);
  });
});
