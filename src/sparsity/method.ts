// A sparsity method: pure functions on numbers that select visual tokens at up to three places. Knows no tensors, no models, no
// session. A view's functions compute when they are called, so a method pays only for what it reads.

/** Rows of numbers, f32 [n, width]. */
export interface Matrix {
  readonly data: Float32Array;
  readonly width: number;
}

/** The kept indices, ascending; or the kept indices with the rows that take their place, f32 [kept, width], for a method that merges. */
export type Selection = Int32Array | { readonly kept: Int32Array; readonly rows: Float32Array };

/** What `prune` sees of one grid of tokens after the tower: a picture, a tile, a thumbnail, or the frames of a video. */
export interface TowerView {
  /** The medium among those of the turn. */
  readonly medium: number;
  readonly tokens: number;
  /** t planes (frames) of h rows and w columns; tokens lie in raster order, plane after plane. */
  readonly grid: { readonly t: number; readonly h: number; readonly w: number };
  /** Mean attention (over heads and rows) that each token receives in the i-th layer of `taps.salience`, f32 [tokens]; i = 0 by default. */
  salience(i?: number): Float32Array;
  /** Keys in the i-th layer of `taps.keys`, f32 [tokens, heads, width]. */
  keys(i?: number): Matrix;
  /** The projector's input, f32 [tokens, width]. */
  features(): Matrix;
  /** The projector's output, f32 [tokens, d]. */
  projected(): Matrix;
}

/** What `drop` sees of a turn between two layers of the decoder. */
export interface DropView {
  /** Which of the `starts` comes next. */
  readonly stage: number;
  /** Layers from which on there may be fewer rows, ascending. */
  readonly starts: readonly number[];
  /** Layers of the decoder. */
  readonly layers: number;
  /** Visual rows that the turn's media began with. */
  readonly total: number;
  /**
   * For each visual row of the turn's media that is still kept, the attention it receives from the question's last row (or the
   * raters) in the layer that has just run (or comes next), full-row softmax, mean over heads (and raters): f32 [kept].
   */
  readonly scores: Float32Array;
  /** Hidden states of these rows, f32 [kept, d]. */
  hidden(): Matrix;
}

/** Where a visual row lies: its plane, row and column in a grid of the conversation's medium-th medium. */
export interface VisualPlace {
  readonly medium: number;
  readonly grid: number;
  readonly t: number;
  readonly row: number;
  readonly col: number;
}

/** Selects tokens once per turn, after the tower and before the decoder, independently of the question. */
export interface Prune {
  /** Tower layers that `select` reads: integers, negative from the last; or shares of the depth between 0 and 1. */
  readonly taps?: { readonly salience?: readonly number[]; readonly keys?: readonly number[] };
  /** What merged rows are: tower features (the default), or already projected. */
  readonly rows?: 'features' | 'projected';
  /** For each grid of the turn's media, the tokens that are kept. */
  select(grids: readonly TowerView[]): readonly Selection[];
}

/** Selects visual rows between decoder layers, during the prefill of a turn with media. */
export interface Drop {
  /**
   * Decoder layers from which on there may be fewer visual rows: integers, or shares of the depth between 0 and 1, which are
   * rounded, at least 1 and each above the one before it. What does not fit below the depth is left out.
   */
  readonly layers: readonly number[];
  /**
   * Whose attention `select` sees: that of the layer which has just run ('previous', the default), or that of the layer which comes
   * next, of the rows before anything is dropped ('next'; only of the last row).
   */
  readonly scores?: 'previous' | 'next';
  /**
   * The question's rows whose attention `select` sees, as indices among them, from embeddings f32 [rows, d] of the question and of
   * the turn's visual tokens. Default: the last one.
   */
  raters?(question: Matrix, visual: Matrix): Int32Array;
  /**
   * The turn's visual rows that the deeper layers keep, as indices among those kept so far. Permanent: later turns find only these
   * rows, and never drop more of them.
   */
  select(view: DropView): Selection;
}

/** Selects the visual rows that an answer attends, once per turn and layer. */
export interface Retrieve {
  /** Number of the question's last rows whose attention makes the relevance. Default: all. */
  readonly window?: number;
  /** Whether rows that are left out are removed from the cache. `select` is then asked once about each turn's new media. Default: false. */
  readonly permanent?: boolean;
  /**
   * The layer's visual rows that the answer attends, ascending. `relevance` is the mean, over heads and the question's rows, of the
   * full-row softmax on each of them.
   */
  select(relevance: Float32Array, layer: number, places: readonly VisualPlace[]): Int32Array;
}

/** Any of the three; dense has none of them. Keeping everything equals dense bit for bit. */
export interface SparsityMethod {
  readonly name: string;
  /**
   * Positions of kept visual tokens: their own among all tokens of the medium ('original', the default), or renumbered without
   * gaps ('compact').
   */
  readonly positions?: 'original' | 'compact';
  readonly prune?: Prune;
  readonly drop?: Drop;
  readonly retrieve?: Retrieve;
}
