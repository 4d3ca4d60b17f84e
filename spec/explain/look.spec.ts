// From rows in the cache to cells of pictures, on numbers small enough to check by eye.

import { layerCounts, looksOf } from '../../src/explain/look';

const image = (tokens: number, ...kept: number[]) => ({
  ...{ grid: { rows: 1, cols: tokens }, tokens, salience: undefined },
  kept: Int32Array.from(kept),
});
const rows = (...layers: number[][]) => layers.map((layer) => Int32Array.from(layer));

const place = (image: number, col: number) => ({ image, row: 0, col });

describe('looksOf', () => {
  it('gives rows back to the cells of the pictures that they came from', () => {
    const looks = looksOf([
      { stats: { images: [image(4, 1, 3), image(3, 0, 2)], retrieved: rows([0, 3], [1, 2]) } },
      { stats: { images: [], retrieved: rows([0, 1], [2, 3]) } },
      { stats: { images: [image(5, 4)], retrieved: rows([1, 4], [0]) } },
    ]);
    expect(looks.map((turn) => turn.map(({ picture, retrieved }) => [picture, retrieved]))).toEqual([
      [
        [0, [[1], [3]]],
        [1, [[2], [0]]],
      ],
      [
        [0, [[1, 3], []]],
        [1, [[], [0, 2]]],
      ],
      [
        [0, [[3], [1]]],
        [1, [[], []]],
        [2, [[4], []]],
      ],
    ]);
  });

  it('says nothing of layers where every layer attends everything', () => {
    const all = { images: [image(4, 1, 3)], retrieved: rows([0, 1], [0, 1]) };
    for (const stats of [all, { ...all, retrieved: undefined }])
      expect(looksOf([{ stats }])[0]?.[0]?.retrieved).toBeUndefined();
    const but = looksOf([{ stats: { ...all, retrieved: rows([0, 1], [1]) } }]);
    expect(but[0]?.[0]?.retrieved).toEqual([[1, 3], [3]]);
  });

  it('lays relevance on cells, 0 where they were pruned', () => {
    const stats = { images: [image(4, 1, 3), image(2, 0)], retrieved: undefined };
    const [turn] = looksOf([
      {
        stats,
        relevance: [{ scores: Float32Array.of(0.5, 0.25, 0.125), places: [place(0, 1), place(0, 3), place(1, 0)] }],
      },
    ]);
    expect(turn?.map(({ relevance }) => relevance?.map((layer) => [...layer]))).toEqual([
      [[0, 0.5, 0, 0.25]],
      [[0.125, 0]],
    ]);
  });

  it('refuses a conversation whose beginning is missing', () => {
    const invalid = expect.objectContaining({ code: 'ERR_OPTION_INVALID' });
    expect(() => looksOf([{ stats: { images: [image(4, 1)], retrieved: rows([1]) } }])).toThrow(invalid);
    expect(() =>
      looksOf([
        {
          stats: { images: [], retrieved: undefined },
          relevance: [{ scores: Float32Array.of(1), places: [place(0, 0)] }],
        },
      ]),
    ).toThrow(invalid);
  });
});

it('counts the layers that retrieved a cell', () => {
  expect([...layerCounts([[0, 2], [2], []], 4)]).toEqual([1, 0, 2, 0]);
});
