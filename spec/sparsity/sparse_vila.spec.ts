// SparseVILA on hand-made numbers: budgets per plane, per medium and over all, options, presets.

import { SPARSE_VILA_PRESETS, type SparseVilaOptions, sparseVila, type TowerView } from '../../src';
import { indicesOf, towers, viewOf } from './views';

const all = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const image = (...salience: number[]): TowerView =>
  viewOf({ t: 1, h: 1, w: salience.length }, Float32Array.from(salience));
const prune = (options: SparseVilaOptions, ...images: TowerView[]): number[][] =>
  (sparseVila(options).prune?.select(images) ?? []).map((kept) => Array.from(indicesOf(kept)));

describe('sparseVila', () => {
  it('with no sparsity keeps everything', () => {
    const method = sparseVila({ prefillSparsity: 0, decodeSparsity: 0 });
    const [first, second] = method.prune?.select(towers([9, 25], 3)) ?? [];
    expect([Array.from(indicesOf(first)), Array.from(indicesOf(second))]).toEqual([all(9), all(25)]);
    expect(Array.from(method.retrieve?.select(Float32Array.of(3, 1, 2), 0, []) ?? [])).toEqual(all(3));
  });

  it('counts the budget in each image, or over all of them', () => {
    const images = [image(0.4, 0.3, 0.2, 0.1), image(0.27, 0.26, 0.24, 0.23)];
    expect(prune({ prefillSparsity: 0.5 }, ...images)).toEqual([
      [0, 1],
      [0, 1],
    ]);
    // The best four of all eight: 0.4, 0.3, 0.27, 0.26.
    expect(prune({ prefillSparsity: 0.5, budget: 'global' }, ...images)).toEqual([
      [0, 1],
      [0, 1],
    ]);
    // The best two of all: both in the first picture, so that nothing of the second is left.
    expect(prune({ prefillSparsity: 0.75, budget: 'global' }, ...images)).toEqual([[0, 1], []]);
    expect(prune({ prefillSparsity: 0.75 }, ...images)).toEqual([[0], [0]]);
    // Equal scores across images: the earlier image wins.
    expect(prune({ prefillSparsity: 0.5, budget: 'global' }, image(1, 1), image(1, 1))).toEqual([[0, 1], []]);
    expect(prune({ budget: 'global' })).toEqual([]);
  });

  it('counts the budget in each plane, in each medium, or over all', () => {
    // A video of two frames of 2 tokens, whose second frame holds the most salient token; and a tiled picture, 1 + 4 tokens.
    const film = viewOf({ t: 2, h: 1, w: 2 }, Float32Array.of(0.45, 0.55, 0.9, 0.1));
    const [thumbnail, tile] = [image(1), image(0.4, 0.3, 0.2, 0.1)].map((view) => ({ ...view, medium: 1 }));
    const media = [film, thumbnail, tile].filter((view) => view !== undefined);
    expect(prune({ prefillSparsity: 0.5 }, ...media)).toEqual([[1, 2], [0], [0, 1]]);
    // Two of the video's four: 0.9 and 0.55. Of the picture's five two (2.5 to even): salience times tokens is 1 in the thumbnail,
    // 1.6, 1.2, 0.8 and 0.4 in the tile.
    expect(prune({ prefillSparsity: 0.5, budget: 'medium' }, ...media)).toEqual([[1, 2], [], [0, 1]]);
    // Four of all nine (4.5 to even): 1.8 and 1.1 of the video, 1.6 and 1.2 of the tile.
    expect(prune({ prefillSparsity: 0.5, budget: 'global' }, ...media)).toEqual([[1, 2], [], [0, 1]]);
    // Two of all: 1.8 of the video and 1.6 of the tile.
    expect(prune({ prefillSparsity: 0.75, budget: 'global' }, ...media)).toEqual([[2], [], [0]]);
    expect(prune({ prefillSparsity: 0, budget: 'medium' }, ...media)).toEqual([all(4), [0], all(4)]);
  });

  it('retrieves by relevance alone, whatever the layer', () => {
    const { retrieve } = sparseVila({ decodeSparsity: 0.5 });
    expect(Array.from(retrieve?.select(Float32Array.of(0.1, 0.4, 0.4, 0.2), 0, []) ?? [])).toEqual([1, 2]);
    expect(Array.from(retrieve?.select(Float32Array.of(0.9, 0.1, 0.1, 0.2), 3, []) ?? [])).toEqual([0, 3]);
    expect(Array.from(retrieve?.select(new Float32Array(), 0, []) ?? [])).toEqual([]);
  });

  it('spreads a share of the budget evenly among the tokens of low salience', () => {
    // Of 10 tokens 4 stay: the two best, 8 and 9, and of the others, 0 to 7, those in the middle of each half.
    expect(prune({ prefillSparsity: 0.6, spread: 0.5 }, image(...all(10)))).toEqual([[2, 6, 8, 9]]);
    expect(
      prune({ prefillSparsity: 0.6, spread: 0.5, budget: 'global' }, image(...all(5)), image(5, 6, 7, 8, 9)),
    ).toEqual([[2], [1, 3, 4]]);
    expect(prune({ prefillSparsity: 0, spread: 0.5 }, image(...all(10)))).toEqual([all(10)]);
    expect(prune({ prefillSparsity: 0.9, spread: 0.5 }, image(...all(10)))).toEqual([[9]]);
  });

  it('leaves the first layers dense where asked to', () => {
    const { retrieve } = sparseVila({ decodeSparsity: 0.5, denseLayers: 2 });
    const kept = [0, 1, 2].map((layer) => Array.from(retrieve?.select(Float32Array.of(1, 2, 3, 4), layer, []) ?? []));
    expect(kept).toEqual([
      [0, 1, 2, 3],
      [0, 1, 2, 3],
      [2, 3],
    ]);
  });

  it('refuses scores that are no numbers', () => {
    const scores = expect.objectContaining({ code: 'ERR_SCORES' });
    expect(() => prune({}, image(1, Number.NaN))).toThrow(scores);
    expect(() => prune({ budget: 'global' }, image(1), image(Number.NaN))).toThrow(scores);
    expect(() => sparseVila().retrieve?.select(Float32Array.of(Number.NaN), 0, [])).toThrow(scores);
  });

  it('takes the image preset, and one ratio alone leaves the other at it', () => {
    const counts = (options?: SparseVilaOptions): number[] => {
      const method = sparseVila(options);
      const images = towers([100], 1);
      return [
        indicesOf(method.prune?.select(images)[0]).length,
        method.retrieve?.select(images[0]?.salience() ?? new Float32Array(), 0, []).length ?? -1,
      ];
    };
    expect(counts()).toEqual([40, 25]);
    expect(counts({})).toEqual([40, 25]);
    expect(counts({ prefillSparsity: 0 })).toEqual([100, 25]);
    expect(counts({ decodeSparsity: 0 })).toEqual([40, 100]);
    expect(counts(SPARSE_VILA_PRESETS.document)).toEqual([55, 25]);
    expect(counts(SPARSE_VILA_PRESETS.longVideo)).toEqual([25, 10]);
    expect(counts(SPARSE_VILA_PRESETS.videoReasoning)).toEqual([30, 15]);
  });

  it('treats an undefined option as absent', () => {
    const undefinedRatio = { prefillSparsity: undefined } as unknown as SparseVilaOptions;
    expect(prune(undefinedRatio, image(...all(10)))).toEqual([[6, 7, 8, 9]]);
  });

  it('has original positions and the last tower layer by default', () => {
    expect(sparseVila()).toMatchObject({
      name: 'sparsevila',
      positions: 'original',
      prune: { taps: { salience: [-1] } },
    });
    expect(sparseVila({ positions: 'compact', salienceLayer: 2 })).toMatchObject({
      positions: 'compact',
      prune: { taps: { salience: [2] } },
    });
  });

  it.each([
    [{ sparsity: 0.5 }, /sparsity/],
    [{ prefillSparcity: 0.5 }, /prefillSparcity/],
    [{ prefillSparsity: 1 }, /prefillSparsity.*received 1/],
    [{ spread: 1 }, /spread.*received 1/],
    [{ denseLayers: 0.5 }, /denseLayers.*received 0\.5/],
    [{ prefillSparsity: -0.1 }, /prefillSparsity.*received -0\.1/],
    [{ prefillSparsity: Number.NaN }, /prefillSparsity.*received NaN/],
    [{ prefillSparsity: '0.5' }, /prefillSparsity/],
    [{ prefillSparsity: null }, /prefillSparsity.*received null/],
    [{ decodeSparsity: 1 }, /decodeSparsity.*received 1/],
    [{ decodeSparsity: Number.NaN }, /decodeSparsity.*received NaN/],
    [{ decodeSparsity: Number.NEGATIVE_INFINITY }, /decodeSparsity.*received -Infinity/],
    [{ salienceLayer: 1.5 }, /salienceLayer.*received 1\.5/],
    [{ salienceLayer: Number.NaN }, /salienceLayer.*received NaN/],
    [{ positions: 'packed' }, /'original' or 'compact'.*received "packed"/],
    [{ budget: 'all' }, /'plane' or 'medium' or 'global'.*received "all"/],
  ])('refuses %j', (options, message) => {
    expect(() => sparseVila(options as SparseVilaOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_OPTION_INVALID', message: expect.stringMatching(message) }),
    );
  });
});
