// A row of the table of methods.

import type { SparsityMethod, TowerView } from './method';
import { budget } from './top_k';

export interface MethodRatios {
  /** Share of visual tokens dropped in prefill, 0 <= p < 1; for methods that drop between layers, the mean over the layers. */
  readonly prefillSparsity: number;
  /** Share of the retained visual rows that decoding leaves out, 0 <= d < 1. */
  readonly decodeSparsity: number;
  readonly positions?: 'original' | 'compact';
  readonly seed?: number;
  /** Number of the last frames that each frame of a film attends while it is read, for a method that retrieves frames. */
  readonly localFrames?: number;
}

/** Options of methods that the command line has. */
export type MethodOption =
  | 'prefillSparsity'
  | 'decodeSparsity'
  | 'positions'
  | 'salienceLayer'
  | 'budget'
  | 'localFrames';

export interface MethodEntry {
  readonly name: string;
  readonly title: string;
  /** 'tower', 'prefill', 'decode', or several. */
  readonly stage: string;
  readonly queryAware: boolean;
  /** Whether a later question can still reach every token that the query-agnostic stage kept. */
  readonly safeForLaterTurns: boolean;
  readonly source: string;
  /** The ratios that the method uses; the other one is ignored. */
  readonly uses: { readonly prefill: boolean; readonly decode: boolean };
  /** Names of the method's own options that the command line has. */
  readonly options?: readonly MethodOption[];
  /**
   * Number of tokens that `prune` keeps of a grid of t planes; default: of each plane its budget. Films have budgets of their own where a method
   * shares them out among frames.
   */
  readonly keeps?: (grid: TowerView['grid'], prefillSparsity: number) => number;
  /** Whether the method shares tokens out by scores of frames, which a model gives before the turn (`quotaFor`); without them all frames are equal. */
  readonly frameScores?: boolean;
  /** Number of the first decoder layers that attend all retained rows regardless of the decode ratio; 0 if not given. */
  readonly denseLayers?: number;
  create(ratios: MethodRatios): SparsityMethod;
}

/** Number of tokens that the `prune` of a row keeps of a grid. */
export function keptOf(
  { keeps }: Pick<MethodEntry, 'keeps'>,
  grid: TowerView['grid'],
  prefillSparsity: number,
): number {
  return keeps?.(grid, prefillSparsity) ?? grid.t * budget(grid.h * grid.w, prefillSparsity);
}

/** The `create` of a method that uses only the prefill ratio and positions. */
export function tower(
  make: (options: { prefillSparsity: number; positions?: 'original' | 'compact' }) => SparsityMethod,
): MethodEntry['create'] {
  return ({ decodeSparsity: _, seed: _s, localFrames: _l, ...options }) => make(options);
}
