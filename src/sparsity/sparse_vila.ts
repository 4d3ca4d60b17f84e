// SparseVILA (Khaki et al., arXiv 2510.17777): at prefill, tokens of low salience in the tower's own attention are dropped,
// whatever will be asked; at decode, each turn and layer attends only to the retained rows most relevant to the question.
// Nothing retained is lost: the next turn may retrieve other rows.
// `spread` and `denseLayers` are ours: on the packaged model, the retrieval of the first decoder layer alone costs all that decoding
// loses (deeper layers choose well, the first does not know the question yet), and the decoder leans on plain background too.

import { checkOptions, NATURAL, oneOf } from '../options';
import type { SparsityMethod, TowerView } from './method';
import { LAYER, POSITIONS, SHARE } from './options';
import { perPlane, planesOf } from './planes';
import { budget, roundHalfEven, topK } from './top_k';
import { strided } from './uniform';

export interface SparseVilaOptions {
  /** Share of visual tokens dropped after the tower, 0 <= p < 1. */
  readonly prefillSparsity?: number;
  /** Share of the retained visual rows that a turn's decoding leaves out, 0 <= d < 1. */
  readonly decodeSparsity?: number;
  /** Tower layer whose attention gives the salience; default the last (-1). */
  readonly salienceLayer?: number;
  /** Default 'original': renumbering costs place questions most of their accuracy. */
  readonly positions?: 'original' | 'compact';
  /**
   * Whether the prefill budget is counted in each plane (image, tile, thumbnail, frame), in each image or video, or over all media of
   * a turn. Default 'plane'.
   */
  readonly budget?: 'plane' | 'medium' | 'global';
  /** Share of the prefill budget given to tokens spread evenly among those of low salience, 0 <= s < 1; default 0, as in the paper. */
  readonly spread?: number;
  /** So many of the first decoder layers attend all retained rows; default 0, as in the paper. Quest does so with two. */
  readonly denseLayers?: number;
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
  const given = checkOptions('sparseVila', options, {
    prefillSparsity: SHARE,
    decodeSparsity: SHARE,
    salienceLayer: LAYER,
    positions: POSITIONS,
    budget: oneOf('plane', 'medium', 'global'),
    spread: SHARE,
    denseLayers: NATURAL,
  });
  const { image } = SPARSE_VILA_PRESETS;
  const { prefillSparsity = image.prefillSparsity, decodeSparsity = image.decodeSparsity } = given;
  const { salienceLayer = -1, positions = 'original', budget: scope = 'plane' } = given;
  const { spread = 0, denseLayers = 0 } = given;
  const prune = (salience: Float32Array): Int32Array =>
    keep(salience, budget(salience.length, prefillSparsity), spread);
  return {
    name: 'sparsevila',
    positions,
    prune: {
      taps: { salience: [salienceLayer] },
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

/** The k - e most salient of n tokens and, evenly spread among the others, e = round(spread k). */
function keep(salience: Float32Array, k: number, spread: number): Int32Array {
  const even = roundHalfEven(spread * k);
  const top = topK(salience, k - even);
  if (even === 0) return top;
  const isTop = new Set(top);
  const others = Array.from(salience.keys()).filter((i) => !isTop.has(i));
  const spreadOut = strided(others.length, even).map((i) => others[i] as number);
  return Int32Array.from([...top, ...spreadOut]).sort();
}

/** One budget for all grids of a group. */
function pruneTogether(
  grids: readonly TowerView[],
  prune: (salience: Float32Array) => Int32Array,
  groupOf: (grid: TowerView) => number,
): Int32Array[] {
  const kept: Int32Array[] = [];
  for (const group of new Set(grids.map(groupOf))) {
    const members = Array.from(grids.keys()).filter((i) => groupOf(grids[i] as TowerView) === group);
    const chosen = prune(comparable(members.map((i) => grids[i] as TowerView)));
    let from = 0;
    for (const i of members) {
      const { tokens } = grids[i] as TowerView;
      const [begin, end] = [from, from + tokens];
      kept[i] = chosen.filter((token) => token >= begin && token < end).map((token) => token - begin);
      from = end;
    }
  }
  return kept;
}

/**
 * Salience of grids end to end, on one scale. A plane's salience sums to 1, so a token of a plane of n tokens has 1 / n on average: it
 * is ranked by salience times n, here over the n of the largest plane, so that planes of one size keep their bits.
 */
function comparable(grids: readonly TowerView[]): Float32Array {
  const planes = grids.flatMap(planesOf);
  const largest = planes.reduce((most, { tokens }) => Math.max(most, tokens), 0);
  return Float32Array.from(
    planes.flatMap((plane) => Array.from(plane.salience(), (salience) => salience * (plane.tokens / largest))),
  );
}
