// Formulas of methods whose budget is a film's, on cases small enough to do by hand.

import { evs, quota, type SparsityMethod, storm, type TowerView, vCast, vidCom2, videoScan } from '../../src';
import { quotaBudgets } from '../../src/sparsity/quota';
import { gridWithin } from '../../src/sparsity/resize';
import { shareOut } from '../../src/sparsity/shares';
import { uniform as uniformNumbers } from '../../src/text/random';
import { indicesOf, matrixOf, noiseMatrix, viewOf } from './views';

type Rows = readonly (readonly number[])[];

/** A film of frames of one row of tokens, each with its projected rows. */
function film(frames: readonly Rows[]): TowerView {
  const w = frames[0]?.length ?? 0;
  const projected = matrixOf(...frames.flat());
  return { ...viewOf({ t: frames.length, h: 1, w }), tokens: frames.length * w, projected: () => projected };
}
const kept = (method: SparsityMethod, view: TowerView): number[] =>
  Array.from(indicesOf(method.prune?.select([view])[0]));

describe('shareOut', () => {
  it.each<[string, number, number[], { least: number; most: number }, number[]]>([
    ['equal weights: the first get what is left', 10, [1, 1, 1], { least: 0, most: 10 }, [4, 3, 3]],
    ['the largest remainder gets what is left', 7, [1, 2, 3], { least: 0, most: 7 }, [1, 2, 4]],
    ['not the largest weight', 3, [4, 1], { least: 0, most: 9 }, [2, 1]],
    ['what a part cannot take goes to the others', 10, [8, 1, 1], { least: 0, most: 4 }, [4, 3, 3]],
    ['the least comes first', 6, [0, 1, 5], { least: 1, most: 6 }, [1, 1, 4]],
    ['weights that are all 0 are equal', 5, [0, 0], { least: 0, most: 4 }, [3, 2]],
    ['parts of weight 0 take what nothing else can', 7, [1, 0, 0], { least: 0, most: 3 }, [3, 2, 2]],
    ['one part', 5, [0.3], { least: 1, most: 9 }, [5]],
    ['nothing', 0, [1, 2], { least: 0, most: 3 }, [0, 0]],
    ['everything', 6, [1, 1e-9], { least: 0, most: 3 }, [3, 3]],
  ])('%s', (_, total, weights, bounds, expected) => {
    expect(shareOut(total, weights, bounds)).toEqual(expected);
  });

  it('sums to the total within the bounds, for any weights', () => {
    const random = uniformNumbers(3);
    for (let i = 0; i < 500; i++) {
      const parts = 1 + Math.floor(random() * 9);
      const least = Math.floor(random() * 3);
      const most = least + Math.floor(random() * 20);
      const total = parts * least + Math.floor(random() * (parts * (most - least) + 1));
      const weights = Array.from({ length: parts }, () => (random() < 0.3 ? 0 : random() ** 9));
      const counts = shareOut(total, weights, { least, most });
      expect(counts.reduce((a, b) => a + b)).toBe(total);
      for (const count of counts) expect(count >= least && count <= most && Number.isInteger(count)).toBe(true);
    }
  });
});

describe('EVS', () => {
  // Against the frame before: 1 (token 3) and 2 (token 4); tokens 2 and 5 point as before.
  const [right, up, left] = [
    [1, 0],
    [0, 1],
    [-2, 0],
  ];
  const view = film([
    [right, up],
    [right, right],
    [left, right],
  ]);

  it.each([
    [1 / 3, [0, 1, 3, 4]],
    [0.5, [0, 1, 4]],
    // Less than the first frame cannot be kept.
    [0.9, [0, 1]],
  ])('keeps the first frame and what changed most, at %f', (prefillSparsity, expected) => {
    expect(kept(evs({ prefillSparsity }), view)).toEqual(expected);
  });

  it('of equal changes keeps the first, over all frames', () => {
    const blinking = film([
      [right, up],
      [up, right],
      [right, up],
    ]);
    expect(kept(evs({ prefillSparsity: 0.5 }), blinking)).toEqual([0, 1, 2]);
  });

  it('keeps a picture whole', () => {
    expect(kept(evs({ prefillSparsity: 0.9 }), film([[right, up, left]]))).toEqual([0, 1, 2]);
  });
});

describe('VidCom2', () => {
  // The first two channels vary most and do not count. In the others a is (1, 0) and b is (0, 1).
  let at = 0;
  const token = (x: number, y: number): number[] => [100 * (at % 3), -100 * (at++ % 2), x, y];
  const [a, b] = [() => token(2, 0), () => token(0, 3)];
  const still = [a(), a(), a(), a()];
  const changing = [a(), a(), b(), b()];

  it('gives the frame that differs from the film more tokens, and keeps what differs in it', () => {
    // The film's mean is (3/4, 1/4): G(1/8) = 4.18 for a, G(9/8) = 1.77 for b. Means 4.18 and 2.97 give p = (0, 1), rates 1/4 and 3/4.
    // In the second frame a has v + f = 4.18 + G(1/2) and b 1.77 + G(1/2).
    expect(kept(vidCom2({ prefillSparsity: 0.5 }), film([still, changing]))).toEqual([0, 4, 6, 7]);
    expect(kept(vidCom2({ prefillSparsity: 0.5 }), film([changing, still]))).toEqual([0, 2, 3, 4]);
  });

  it('keeps a token of each frame at least', () => {
    expect(kept(vidCom2({ prefillSparsity: 0.99 }), film([still, changing]))).toEqual([0, 6]);
  });

  it('gives no frame more than it has', () => {
    // Rates 5/8 and 15/8 of 4 tokens: the second frame is full, and the first takes the rest.
    expect(kept(vidCom2({ prefillSparsity: 0.125 }), film([still, changing]))).toEqual([0, 1, 2, 4, 5, 6, 7]);
  });

  it('prunes a picture as a film of one frame', () => {
    expect(kept(vidCom2({ prefillSparsity: 0.5 }), film([[a(), a(), a(), b()]]))).toEqual([0, 3]);
  });

  it('permuting the frames permutes what is kept', () => {
    const [t, n] = [5, 12];
    const { data, width } = noiseMatrix(t * n, 6, uniformNumbers(2));
    const order = [3, 0, 4, 1, 2];
    const frame = (i: number): Rows =>
      Array.from({ length: n }, (_, row) =>
        Array.from(data.subarray((i * n + row) * width, (i * n + row + 1) * width)),
      );
    const method = vidCom2({ prefillSparsity: 0.6 });
    const plain = kept(method, film(Array.from({ length: t }, (_, i) => frame(i))));
    const permuted = kept(method, film(order.map(frame)));
    const back = permuted.map((i) => (order[Math.floor(i / n)] as number) * n + (i % n)).sort((x, y) => x - y);
    expect(back).toEqual(plain);
  });
});

describe('V-CAST', () => {
  // Of mean (1, 0): scores 0, 1, 1 - 0.71 + 0.21, and the same.
  const wide = [
    [1, 0],
    [3, 0],
    [1, 1],
    [1, -1],
  ];
  const tall = wide.map(([x = 0, y = 0]) => [y, x]);

  it('gives the frame at which the path turns more tokens', () => {
    // There and back: c = 1, 2, 1. Each frame has one token, and of 3 more 0.49, 2.03, 0.49.
    expect(kept(vCast({ prefillSparsity: 0.5 }), film([wide, tall, wide]))).toEqual([1, 2, 5, 6, 7, 9]);
  });

  it('gives the frames of a still film equal numbers', () => {
    expect(kept(vCast({ prefillSparsity: 0.5 }), film([wide, wide, wide]))).toEqual([1, 2, 5, 6, 9, 10]);
  });

  it('keeps a token of each frame at least, and two frames have no turn', () => {
    expect(kept(vCast({ prefillSparsity: 0.99 }), film([wide, tall]))).toEqual([1, 5]);
    expect(kept(vCast({ prefillSparsity: 0.5 }), film([wide, tall]))).toEqual([1, 2, 5, 6]);
  });

  it('prunes a picture as a film of one frame', () => {
    expect(kept(vCast({ prefillSparsity: 0.5 }), film([wide]))).toEqual([1, 2]);
  });
});

describe('STORM', () => {
  it.each([
    [5, 0.5, [0, 2, 4]],
    [6, 0.5, [0, 2, 4]],
    [7, 2 / 3, [0, 3, 6]],
    // s = 2.5
    [8, 0.6, [0, 2, 5, 7]],
    [3, 0.99, [0]],
    [1, 0.5, [0]],
  ])('of %i frames at %f keeps all tokens of every s-th', (t, prefillSparsity, frames) => {
    const view = film(Array.from({ length: t }, () => [[1], [2]]));
    expect(kept(storm({ prefillSparsity }), view)).toEqual(frames.flatMap((frame) => [2 * frame, 2 * frame + 1]));
  });
});

describe('VideoScan', () => {
  const rowsOf = (method: SparsityMethod, view: TowerView): number[] => {
    const [one] = method.prune?.select([view]) ?? [];
    return one === undefined || one instanceof Int32Array ? [] : Array.from(one.rows);
  };
  // Means (3, 0), (2, 1/2), (0, 3), (1/2, 2): the first two are alike, and the last two.
  const view = film([
    [
      [2, 0],
      [4, 0],
    ],
    [
      [1, 0],
      [3, 1],
    ],
    [
      [0, 2],
      [0, 4],
    ],
    [
      [0, 1],
      [1, 3],
    ],
  ]);

  it('replaces each frame by the mean of its tokens, at the place of its last one', () => {
    expect(kept(videoScan(), view)).toEqual([1, 3, 5, 7]);
    expect(rowsOf(videoScan(), view)).toEqual([3, 0, 2, 0.5, 0, 3, 0.5, 2]);
  });

  it('beyond the limit drops the earlier carrier of the most similar neighbors, frame by frame', () => {
    // After the third frame the first two are alike, after the fourth the third and it.
    expect(kept(videoScan({ memory: 2 }), view)).toEqual([3, 7]);
    expect(rowsOf(videoScan({ memory: 2 }), view)).toEqual([2, 0.5, 0.5, 2]);
    expect(kept(videoScan({ memory: 3 }), view)).toEqual([3, 5, 7]);
    // The newest one stays.
    expect(kept(videoScan({ memory: 1 }), view)).toEqual([7]);
  });

  it('of equally similar neighbors drops the first', () => {
    expect(kept(videoScan({ memory: 2 }), film([[[1, 0]], [[2, 0]], [[3, 0]]]))).toEqual([1, 2]);
  });

  // Mean (2, 1): products 6, 3, 3 and the last token, in whose place the mean is.
  const frame = [
    [3, 0],
    [0, 3],
    [1, 1],
    [4, 0],
  ];
  it('keeps beside the carrier the tokens with the largest product with it', () => {
    expect(kept(videoScan({ addKv: 1 }), film([frame]))).toEqual([0, 3]);
    expect(rowsOf(videoScan({ addKv: 2 }), film([frame]))).toEqual([3, 0, 0, 3, 2, 1]);
    expect(kept(videoScan({ addKv: 16 }), film([frame]))).toEqual([0, 1, 2, 3]);
  });

  it('makes of a share a smaller bank or more tokens', () => {
    expect(kept(videoScan({ prefillSparsity: 0.75 }), view)).toEqual([3, 7]);
    expect(kept(videoScan({ prefillSparsity: 0.5 }), view)).toEqual([1, 3, 5, 7]);
    expect(kept(videoScan({ prefillSparsity: 0.625 }), film([frame, frame]))).toEqual([0, 3, 7]);
    expect(kept(videoScan({ prefillSparsity: 0.75 }), film([frame]))).toEqual([3]);
  });
});

describe('QuoTA', () => {
  it.each<[string, number, number[], number, number[]]>([
    ['by the squares of the scores', 26, [0.5, 0.1, 0], 100, [25, 1, 0]],
    ['no frame beyond its grid, the rest goes to others', 12, [0.5, 0.1, 0], 9, [9, 3, 0]],
    ['scores that are all 0 are equal', 7, [0, 0, 0], 9, [3, 2, 2]],
    ['less than a token for each frame', 1, [0.1, 0.1, 0.1], 9, [1, 0, 0]],
    ['one frame', 5, [0.01], 9, [5]],
    ['everything', 18, [0.9, 0], 9, [9, 9]],
  ])('budgets: %s', (_, total, scores, most, expected) => {
    expect(quotaBudgets(total, scores, most)).toEqual(expected);
  });

  it.each<[number, [number, number], [number, number]]>([
    [0, [10, 10], [0, 0]],
    [1, [10, 10], [1, 1]],
    [7, [10, 10], [3, 2]],
    [9, [10, 10], [3, 3]],
    [15, [10, 10], [4, 3]],
    [99, [10, 10], [10, 9]],
    [100, [10, 10], [10, 10]],
    [24, [4, 16], [2, 10]],
    [5, [2, 50], [1, 5]],
    [6, [40, 2], [6, 1]],
    [3, [1, 4], [1, 3]],
  ])('the grid of %i tokens in %j is %j', (n, [h, w], [rows, cols]) => {
    expect(gridWithin(n, { h, w })).toEqual({ h: rows, w: cols });
  });

  /** Frames of 2 × 2 tokens of one channel. */
  const square = (...frames: number[][]): TowerView => {
    const projected = matrixOf(...frames.flat().map((x) => [x]));
    return { ...viewOf({ t: frames.length, h: 2, w: 2 }), tokens: 4 * frames.length, projected: () => projected };
  };
  const selected = (scores: number[] | undefined, prefillSparsity: number, view: TowerView) => {
    const [one] = quota({ prefillSparsity, ...(scores && { scores: [scores] }) }).prune?.select([view]) ?? [];
    return { kept: Array.from(indicesOf(one)), rows: one instanceof Int32Array ? [] : Array.from(one?.rows ?? []) };
  };
  const two = square([0, 2, 4, 6], [10, 20, 30, 40]);

  it('resizes each frame to its budget: bilinear, at the place of the cell below', () => {
    // 5 tokens by 4 : 1.
    expect(selected([0.2, 0.1], 0.375, two)).toEqual({ kept: [0, 1, 2, 3, 7], rows: [0, 2, 4, 6, 25] });
    // 2 tokens each: one column.
    expect(selected([0, 0], 0.5, two)).toEqual({ kept: [1, 3, 5, 7], rows: [1, 5, 15, 35] });
    expect(selected(undefined, 0.5, two)).toEqual(selected([0, 0], 0.5, two));
  });

  it('a frame without a budget is dropped, and a whole one is not interpolated', () => {
    expect(selected([0, 1], 0.5, two)).toEqual({ kept: [4, 5, 6, 7], rows: [] });
  });

  it('a plane of several frames has their mean', () => {
    expect(selected([0, 0, 0.4, 0.2], 0.5, two)).toEqual({ kept: [4, 5, 6, 7], rows: [] });
    // Three frames in two planes: the second one has the last alone.
    expect(selected([0.1, 0.1, 0.2], 0.375, two).kept).toEqual([3, 4, 5, 6, 7]);
  });

  it('refuses scores that are no probabilities', () => {
    expect(() => quota({ scores: [[2]] })).toThrow(expect.objectContaining({ code: 'ERR_OPTION_INVALID' }));
  });
});
