// Mapping of cache rows to cells of pictures, on numbers small enough to check by hand.

import { attendedOf, layerCounts, planesOf } from '../../src/explain/attended';
import { evenCells } from '../../src/image/cells';

const image = (tokens: number, ...kept: number[]) => ({
  layout: {
    grids: [{ t: 1, h: 1, w: tokens, frames: [0], cells: evenCells({ width: tokens, height: 1 }, 1, tokens) }],
  },
  ...{ salience: undefined, kept: Int32Array.from(kept) },
});
const rows = (...layers: number[][]) => layers.map((layer) => Int32Array.from(layer));

const place = (medium: number, col: number) => ({ medium, grid: 0, t: 0, row: 0, col });

describe('attendedOf', () => {
  it('maps rows back to the cells of their pictures', () => {
    const attended = attendedOf([
      { stats: { media: [image(4, 1, 3), image(3, 0, 2)], retrieved: rows([0, 3], [1, 2]) } },
      { stats: { media: [], retrieved: rows([0, 1], [2, 3]) } },
      { stats: { media: [image(5, 4)], retrieved: rows([1, 4], [0]) } },
    ]);
    expect(attended.map((turn) => turn.map(({ plane, retrieved }) => [plane, retrieved]))).toEqual([
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

  it('has no entry per layer if every layer attends everything', () => {
    const all = { media: [image(4, 1, 3)], retrieved: rows([0, 1], [0, 1]) };
    for (const stats of [all, { ...all, retrieved: undefined }])
      expect(attendedOf([{ stats }])[0]?.[0]?.retrieved).toBeUndefined();
    const but = attendedOf([{ stats: { ...all, retrieved: rows([0, 1], [1]) } }]);
    expect(but[0]?.[0]?.retrieved).toEqual([[1, 3], [3]]);
  });

  it('maps relevance to cells, with 0 for pruned ones', () => {
    const stats = { media: [image(4, 1, 3), image(2, 0)], retrieved: undefined };
    const [turn] = attendedOf([
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
    expect(() => attendedOf([{ stats: { media: [image(4, 1)], retrieved: rows([1]) } }])).toThrow(invalid);
    expect(() =>
      attendedOf([
        {
          stats: { media: [], retrieved: undefined },
          relevance: [{ scores: Float32Array.of(1), places: [place(0, 0)] }],
        },
      ]),
    ).toThrow(invalid);
  });
});

it('counts the layers that retrieved a cell', () => {
  expect([...layerCounts([[0, 2], [2], []], 4)]).toEqual([1, 0, 2, 0]);
});

it('splits a medium into planes: tiles, a thumbnail, frames', () => {
  const cells = evenCells({ width: 4, height: 2 }, 1, 2);
  const medium = {
    layout: {
      grids: [
        { t: 1, h: 1, w: 2, frames: [0], cells },
        { t: 2, h: 1, w: 2, frames: [0, 4], cells },
      ],
    },
    ...{ kept: Int32Array.of(1, 2, 3, 5), salience: Float32Array.of(0, 1, 2, 3, 4, 5) },
  };
  const planes = planesOf(medium, { media: 7, planes: 4, rows: 10 });
  expect(
    planes.map(({ gridIndex, plane, frame, kept, rows }) => [gridIndex, plane, frame, [...kept], rows.from, rows.to]),
  ).toEqual([
    [0, 0, 0, [1], 10, 11],
    [1, 0, 0, [0, 1], 11, 13],
    [1, 1, 4, [1], 13, 14],
  ]);
  expect(planes.map(({ medium: number, salience }) => [number, ...(salience ?? [])])).toEqual([
    [7, 0, 1],
    [7, 2, 3],
    [7, 4, 5],
  ]);
});
