// SparseVILA (Khaki et al., arXiv 2510.17777): at prefill, tokens with low salience in the tower's own attention are dropped, independently
// of the question (query-agnostic); at decode, each turn and layer attends only to the retained rows that are most relevant to the question.
// Retained rows are never lost: the next turn may retrieve other ones.
// `spread` and `denseLayers` are ours: on the packaged model, all the accuracy that sparse decoding loses is lost in the first decoder
// layer, whose relevance does not depend on the question yet; and the decoder uses background tokens as well.

import { checkOptions, NATURAL, oneOf } from '../options';
import type { SparsityMethod } from './method';
import { LAYER, PRUNING, SHARE } from './options';
import { perPlane, pruneTogether } from './planes';
import { budget, roundHalfEven, topK } from './top_k';
import { topAndSpread } from './uniform';

export interface SparseVilaOptions {
  /** Share of visual tokens dropped after the tower, 0 <= p < 1. */
  readonly prefillSparsity?: number;
  /** Share of the retained visual rows that decoding leaves out, 0 <= d < 1. */
  readonly decodeSparsity?: number;
  /** Tower layer whose attention gives the salience; default the last (-1). */
  readonly salienceLayer?: number;
  /** Default 'original': renumbering loses most of the accuracy of questions about locations. */
  readonly positions?: 'original' | 'compact';
  /**
   * Over what the prefill budget is counted: each plane (image, tile, thumbnail, frame), each image or video, or all media of a turn.
   * Default 'plane'.
   */
  readonly budget?: 'plane' | 'medium' | 'global';
  /** Share of the prefill budget for tokens that are evenly spread among those of low salience, 0 <= s < 1; default 0, as in the paper. */
  readonly spread?: number;
  /** Number of the first decoder layers that attend all retained rows; default 0, as in the paper. Quest uses two. */
  readonly denseLayers?: number;
}

/** The paper's ratios by kind of task. */
export const SPARSE_VILA_PRESETS = {
  image: { prefillSparsity: 0.6, decodeSparsity: 0.75 },
  document: { prefillSparsity: 0.45, decodeSparsity: 0.75 },
  longVideo: { prefillSparsity: 0.75, decodeSparsity: 0.9 },
  videoReasoning: { prefillSparsity: 0.7, decodeSparsity: 0.85 },
} as const;

/**
 * SparseVILA with the given ratios; a ratio that is not given is that of the `image` preset.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for an unknown option or a value out of range
 */
export function sparseVila(options: SparseVilaOptions = {}): SparsityMethod {
  const given = checkOptions('sparseVila', options, {
    ...PRUNING,
    decodeSparsity: SHARE,
    salienceLayer: LAYER,
    budget: oneOf('plane', 'medium', 'global'),
    spread: SHARE,
    denseLayers: NATURAL,
  });
  const { image } = SPARSE_VILA_PRESETS;
  const { prefillSparsity = image.prefillSparsity, decodeSparsity = image.decodeSparsity } = given;
  const { salienceLayer = -1, positions = 'original', budget: scope = 'plane' } = given;
  const { spread = 0, denseLayers = 0 } = given;
  const prune = (salience: Float32Array): Int32Array => {
    const kept = budget(salience.length, prefillSparsity);
    const even = roundHalfEven(spread * kept);
    return topAndSpread(salience, kept - even, even);
  };
  return {
    name: 'sparsevila',
    positions,
    prune: {
      taps: { salience: [salienceLayer] },
      scope: scope === 'plane' ? 'plane' : 'turn',
      select:
        scope === 'plane'
          ? perPlane((plane) => prune(plane.salience()))
          : (grids) => pruneTogether(grids, prune, scope === 'medium' ? ({ medium }) => medium : () => 0),
    },
    retrieve: {
      select: (relevance, layer) => topK(relevance, budget(relevance.length, layer < denseLayers ? 0 : decodeSparsity)),
    },
  };
}
