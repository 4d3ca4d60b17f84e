// The seams of a sparsity method: pure functions on numbers. Knows no tensors, no models, no session.

/** What a method sees of one image after the tower. */
export interface TowerView {
  readonly tokens: number;
  readonly grid: { readonly rows: number; readonly cols: number };
  /** Mean attention that each token receives in the salience layer, f32 [tokens]. */
  readonly salience: Float32Array;
}

/** Any subset of the seams; dense is none of them. */
export interface SparsityMethod {
  readonly name: string;
  /** Tower layer that `prune` wants salience from; negative counts from the last. */
  readonly salienceLayer?: number;
  /**
   * Where kept visual tokens stand: at their own positions among all of the image's tokens ('original', the default), or
   * renumbered without gaps ('compact').
   */
  readonly positions?: 'original' | 'compact';
  /** After the tower, before the projector: for each image, the tokens that live, ascending. Not aware of the question. */
  prune?(images: readonly TowerView[]): Int32Array[];
  /**
   * Once per turn and layer: which of the cache's visual rows the answer attends, ascending. `relevance` is the mean, over
   * heads and the question's rows, of the full-row softmax on each visual row.
   */
  retrieve?(relevance: Float32Array, layer: number): Int32Array;
}
