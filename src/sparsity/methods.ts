// The table of methods: what evaluation, the command line and the suite read. A further method is its file and a row here.

import { dense } from './dense';
import type { SparsityMethod } from './method';
import { random } from './random';
import { sparseVila } from './sparse_vila';
import { uniform } from './uniform';

export interface MethodRatios {
  /** Share of visual tokens dropped during prefill, 0 <= p < 1; for methods that drop between layers, the mean over layers. */
  readonly prefillSparsity: number;
  /** Share of the retained visual rows that decoding leaves out, 0 <= d < 1. */
  readonly decodeSparsity: number;
  readonly positions?: 'original' | 'compact';
  readonly seed?: number;
}

export interface MethodEntry {
  readonly name: string;
  readonly title: string;
  /** 'tower', 'prefill', 'decode', or several. */
  readonly stage: string;
  readonly queryAware: boolean;
  /** Whether a later question can still reach all that the query-agnostic stage kept. */
  readonly safeForLaterTurns: boolean;
  readonly source: string;
  /** Which of the ratios it has a seam for; the other is ignored. */
  readonly uses: { readonly prefill: boolean; readonly decode: boolean };
  create(ratios: MethodRatios): SparsityMethod;
}

export const METHODS: readonly MethodEntry[] = [
  {
    name: 'dense',
    title: 'Dense',
    stage: 'none',
    queryAware: false,
    safeForLaterTurns: true,
    source: '-',
    uses: { prefill: false, decode: false },
    create: () => dense(),
  },
  {
    name: 'sparsevila',
    title: 'SparseVILA',
    stage: 'tower + decode',
    queryAware: true,
    safeForLaterTurns: true,
    source: 'Khaki et al., arXiv 2510.17777',
    uses: { prefill: true, decode: true },
    create: ({ prefillSparsity, decodeSparsity, positions = 'original' }) =>
      sparseVila({ prefillSparsity, decodeSparsity, positions }),
  },
  {
    name: 'random',
    title: 'Random',
    stage: 'tower + decode',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'baseline',
    uses: { prefill: true, decode: true },
    create: random,
  },
  {
    name: 'uniform',
    title: 'Uniform (strided)',
    stage: 'tower + decode',
    queryAware: false,
    safeForLaterTurns: true,
    source: 'baseline',
    uses: { prefill: true, decode: true },
    create: ({ prefillSparsity, decodeSparsity, positions = 'original' }) =>
      uniform({ prefillSparsity, decodeSparsity, positions }),
  },
];
