// The seams of a sparsity method: pure functions on numbers. Knows no tensors, no models, no session. A view's functions compute
// when called, so a method pays only for what it reads.

/** Rows of numbers, f32 [n, width]. */
export interface Matrix {
  readonly data: Float32Array;
  readonly width: number;
}

/** What lives, ascending; or that and the rows that take its place, f32 [kept, width], for a method that merges. */
export type Selection = Int32Array | { readonly kept: Int32Array; readonly rows: Float32Array };

/** What a method sees of one grid of tokens after the tower: a picture, a tile, a thumbnail, or the planes of a video. */
export interface TowerView {
  /** The medium among those of the turn. */
  readonly medium: number;
  readonly tokens: number;
  /** t planes (frames) of h rows and w columns; tokens lie in raster order, plane after plane. */
  readonly grid: { readonly t: number; readonly h: number; readonly w: number };
  /** Mean attention (over heads and rows) that each token receives in the i-th layer of `tower.salience`, f32 [tokens]; i = 0 by default. */
  salience(i?: number): Float32Array;
  /** Keys in the i-th layer of `tower.keys`, f32 [tokens, heads, width]. */
  keys(i?: number): Matrix;
  /** What the projector would be given, f32 [tokens, width]. */
  features(): Matrix;
  /** What the decoder would be given, f32 [tokens, d]. */
  projected(): Matrix;
}

/** What a method sees of a turn between two layers of the decoder. */
export interface DropView {
  /** Which of the `starts` comes next. */
  readonly stage: number;
  /** Layers from which on there may be fewer rows, ascending. */
  readonly starts: readonly number[];
  /** Layers of the decoder. */
  readonly layers: number;
  /** Visual rows that the turn's images began with. */
  readonly total: number;
  /**
   * For each visual row of the turn's images that still lives, the attention it receives from the question's last row (or the
   * raters) in the layer that has just run (or comes next), full-row softmax, mean over heads (and raters): f32 [living].
   */
  readonly scores: Float32Array;
  /** Hidden states of these rows, f32 [living, d]. */
  hidden(): Matrix;
}

/** Where a visual row lies: its plane, row and column in a grid of the conversation's medium-th medium. */
export interface Place {
  readonly medium: number;
  readonly grid: number;
  readonly t: number;
  readonly row: number;
  readonly col: number;
}

/** Any subset of the seams; dense is none of them. */
export interface SparsityMethod {
  readonly name: string;
  /**
   * Tower layers that `prune` reads: integers, negative from the last; or shares of the depth between 0 and 1.
   */
  readonly tower?: { readonly salience?: readonly number[]; readonly keys?: readonly number[] };
  /**
   * Where kept visual tokens stand: at their own positions among all of the image's tokens ('original', the default), or
   * renumbered without gaps ('compact').
   */
  readonly positions?: 'original' | 'compact';
  /** What the rows of a merging `prune` are: tower features (the default), or already projected. */
  readonly merges?: 'features' | 'projected';
  /** After the tower, before the projector: for each grid, the tokens that are kept. Not aware of the question. */
  prune?(grids: readonly TowerView[]): readonly Selection[];
  /**
   * Decoder layers from which on `drop` may leave fewer visual rows: integers, or shares of the depth between 0 and 1, which are
   * rounded, at least 1 and each above the one before it. What does not fit below the depth is left out.
   */
  readonly dropFrom?: readonly number[];
  /**
   * Whose attention `drop` sees: that of the layer which has just run ('previous', the default), or that of the layer which comes
   * next, of the rows before anything is dropped ('next'; only of the last row).
   */
  readonly scoresOf?: 'previous' | 'next';
  /**
   * The question's rows whose attention `drop` sees, as indices among them, from embeddings f32 [rows, d] of the question and of
   * the turn's visual tokens. Default: the last one.
   */
  raters?(question: Matrix, visual: Matrix): Int32Array;
  /**
   * Between layers, in turns with images: which of the turn's visual rows live on in the deeper layers, as indices among the
   * living. For good: later turns meet what is left, and never drop more of it.
   */
  drop?(view: DropView): Selection;
  /** How many of the question's last rows `retrieve` sees the attention of. Default: all. */
  readonly window?: number;
  /**
   * Once per turn and layer: which of the layer's visual rows the answer attends, ascending. `relevance` is the mean, over
   * heads and the question's rows, of the full-row softmax on each of them.
   */
  retrieve?(relevance: Float32Array, layer: number, places: readonly Place[]): Int32Array;
  /**
   * Whether `retrieve` decides for good: it is then asked once about each turn's new images, and what it leaves out is gone for
   * all later turns.
   */
  readonly evicts?: boolean;
}
