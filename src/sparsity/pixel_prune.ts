// PixelPrune (arXiv 2604.00886): leaves out, before the tower runs, the tokens whose pixels are those of a neighbor: the empty parts of pages,
// slides and screens. A picture without equal pixels, such as a photograph, keeps all its tokens.
// Stage: pixels. Query-aware: no. Safe for later turns: yes. Source: the paper and OPPO-Mente-Lab/PixelPrune.
// At threshold 0 no pixel is lost; the tower's rows are not those of dense all the same, since they attend fewer rows.

import { checkOptions, oneOf } from '../options';
import type { Matrix, PixelView, SparsityMethod } from './method';
import { POSITIONS } from './options';

export interface PixelPruneOptions {
  /** The largest difference of equal tokens, in the units of the normalized pixels; default 0. */
  readonly tau?: number;
  /** The difference of two tokens: of their pixels the largest ('max', the default), the mean ('mae') or the root of the mean square ('rmse'). */
  readonly metric?: keyof typeof METRICS;
  readonly positions?: 'original' | 'compact';
}

const TAU = {
  expected: 'a number of at least 0',
  accepts: (value: unknown) => typeof value === 'number' && value >= 0 && value < Number.POSITIVE_INFINITY,
};

/** X is left out if sim(X, P), with P = B if sim(C, A) and not sim(C, B), else A; A left, B up, C up-left, each as it was reconstructed. */
export function pixelPrune(options: PixelPruneOptions = {}): SparsityMethod {
  const given = checkOptions('pixelPrune', options, {
    tau: TAU,
    metric: oneOf('max', 'mae', 'rmse'),
    positions: POSITIONS,
  });
  const { tau = 0, metric = 'max', positions = 'original' } = given;
  return {
    name: 'pixelprune',
    positions,
    encode: { select: (grids) => grids.map((grid) => unpredicted(grid, tau, METRICS[metric])) },
  };
}

/** Whether two rows differ by at most tau. */
type Similar = (x: Matrix, i: number, j: number, tau: number) => boolean;

function unpredicted({ tokens, grid: { h, w }, pixels }: PixelView, tau: number, similar: Similar): Int32Array {
  const x = pixels();
  // The kept token whose pixels each token is reconstructed from. Differences do not add up, since each is to a kept token.
  const anchors = new Int32Array(tokens);
  const same = (i: number, j: number): boolean => i === j || similar(x, i, j, tau);
  const predicted = (i: number): number => {
    const [row, col] = [Math.floor(i / w) % h, i % w];
    const [left, up, corner] = [anchors[i - 1], anchors[i - w], anchors[i - w - 1]] as [number, number, number];
    if (row === 0) return col === 0 ? -1 : left;
    if (col === 0) return up;
    return same(corner, left) && !same(corner, up) ? up : left;
  };
  for (let i = 0; i < tokens; i++) {
    const from = predicted(i);
    anchors[i] = from >= 0 && same(i, from) ? from : i;
  }
  return anchors.filter((anchor, i) => anchor === i);
}

const METRICS = {
  max: ({ data, width }: Matrix, i: number, j: number, tau: number): boolean => {
    const [a, b] = [i * width, j * width];
    for (let c = 0; c < width; c++) if (Math.abs((data[a + c] as number) - (data[b + c] as number)) > tau) return false;
    return true;
  },
  mae: (x: Matrix, i: number, j: number, tau: number): boolean => sumOf(x, i, j, Math.abs) / x.width <= tau,
  rmse: (x: Matrix, i: number, j: number, tau: number): boolean =>
    Math.sqrt(sumOf(x, i, j, (difference) => difference * difference) / x.width) <= tau,
} as const satisfies Readonly<Record<string, Similar>>;

function sumOf({ data, width }: Matrix, i: number, j: number, of: (difference: number) => number): number {
  let sum = 0;
  for (let c = 0; c < width; c++) sum += of((data[i * width + c] as number) - (data[j * width + c] as number));
  return sum;
}
