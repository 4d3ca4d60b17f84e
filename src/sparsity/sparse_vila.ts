// SparseVILA (Khaki et al., arXiv 2510.17777): at prefill, tokens of low salience in the tower's own attention are dropped,
// whatever will be asked; at decode, each turn and layer attends only to the retained rows most relevant to the question.
// Nothing retained is lost: the next turn may retrieve other rows.

import type { SparsityMethod, TowerView } from './method';
import { checkOptions, LAYER, oneOf, POSITIONS, SHARE } from './options';
import { budget, topK } from './top_k';

export interface SparseVilaOptions {
  /** Share of visual tokens dropped after the tower, 0 <= p < 1. */
  readonly prefillSparsity?: number;
  /** Share of the retained visual rows that a turn's decoding leaves out, 0 <= d < 1. */
  readonly decodeSparsity?: number;
  /** Tower layer whose attention gives the salience; default the last (-1). */
  readonly salienceLayer?: number;
  /** Default 'original': renumbering costs place questions most of their accuracy. */
  readonly positions?: 'original' | 'compact';
  /** Whether the prefill budget is counted in each image or over all images of a turn. Default 'perImage'. */
  readonly budget?: 'perImage' | 'global';
}

/** Ratios that the paper uses, by kind of task. */
export const SPARSE_VILA_PRESETS = {
  image: { prefillSparsity: 0.6, decodeSparsity: 0.75 },
  document: { prefillSparsity: 0.45, decodeSparsity: 0.75 },
  longVideo: { prefillSparsity: 0.75, decodeSparsity: 0.9 },
  videoReasoning: { prefillSparsity: 0.7, decodeSparsity: 0.85 },
} as const;

/**
 * The method with these ratios; the image preset where a ratio is not given.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for an unknown option or a value out of range
 */
export function sparseVila(options: SparseVilaOptions = {}): SparsityMethod {
  checkOptions('sparseVila', options, {
    prefillSparsity: SHARE,
    decodeSparsity: SHARE,
    salienceLayer: LAYER,
    positions: POSITIONS,
    budget: oneOf('perImage', 'global'),
  });
  const { image } = SPARSE_VILA_PRESETS;
  const { prefillSparsity = image.prefillSparsity, decodeSparsity = image.decodeSparsity } = options;
  const { salienceLayer = -1, positions = 'original', budget: scope = 'perImage' } = options;
  return {
    name: 'sparsevila',
    tower: { salience: [salienceLayer] },
    positions,
    prune: (images) =>
      scope === 'global'
        ? pruneTogether(images, prefillSparsity)
        : images.map((image) => topK(image.salience(), budget(image.tokens, prefillSparsity))),
    retrieve: (relevance) => topK(relevance, budget(relevance.length, decodeSparsity)),
  };
}

/** One budget for all images. Each image's salience is an attention distribution, so scores are on one scale. */
function pruneTogether(images: readonly TowerView[], sparsity: number): Int32Array[] {
  const all = Float32Array.from(images.flatMap((image) => [...image.salience()]));
  const kept = topK(all, budget(all.length, sparsity));
  let start = 0;
  return images.map(({ tokens }) => {
    const from = start;
    start += tokens;
    return kept.filter((i) => i >= from && i < from + tokens).map((i) => i - from);
  });
}
