// The interface of sparsity methods: pure functions on numbers that select visual tokens in up to three places. Knows no tensors, models
// or sessions. A view computes its values when its functions are called, so a method pays only for what it reads.

/** Rows of numbers, f32 [n, width]. */
export interface Matrix {
  readonly data: Float32Array;
  readonly width: number;
}

/** Kept indices, ascending; for a method that merges, kept indices with the rows that replace them, f32 [kept, width]. */
export type Selection = Int32Array | { readonly kept: Int32Array; readonly rows: Float32Array };

/** What `prune` sees of one grid of tokens after the tower: a picture, a tile, a thumbnail, or the frames of a video. */
export interface TowerView {
  /** Index of the medium in the turn. */
  readonly medium: number;
  readonly tokens: number;
  /** t planes (frames) of h rows and w columns; tokens are in raster order, plane after plane. */
  readonly grid: { readonly t: number; readonly h: number; readonly w: number };
  /** Number of the medium's tokens, divided by what it would have if it had not been resized; 1 unless the method has `resize`. */
  readonly share: number;
  /** Attention that each token receives in the i-th layer of `taps.salience`, mean over heads and rows, f32 [tokens]; i = 0 by default. */
  salience(i?: number): Float32Array;
  /** Keys in the i-th layer of `taps.keys`, f32 [tokens, heads, width]. */
  keys(i?: number): Matrix;
  /** The projector's input, f32 [tokens, width]. */
  features(): Matrix;
  /** The projector's output, f32 [tokens, d]. */
  projected(): Matrix;
  /** Rows of the embedding table of the question's tokens, which are all that follow the turn's media, f32 [words, d]; for `prune.question`. */
  question(): Matrix;
}

/** What `encode` sees of one grid of tokens before the tower runs. */
export interface PixelView extends Pick<TowerView, 'tokens' | 'grid'> {
  /** What the tower would be given for each token, the normalized pixels of its patches one after another, f32 [tokens, width]. */
  pixels(): Matrix;
}

/** What `drop` sees of a turn between two layers of the decoder. */
export interface DropView {
  /** Index of this point among `starts`. */
  readonly stage: number;
  /** Layers at which rows may be dropped, ascending. */
  readonly starts: readonly number[];
  /** Number of decoder layers. */
  readonly layers: number;
  /** Number of visual rows of the turn's media before anything was dropped. */
  readonly total: number;
  /**
   * Attention that each kept visual row of the turn's media receives from the question's last row (or from the raters) in the layer that
   * has just run (or comes next): softmax over the full row, mean over heads (and raters), f32 [kept].
   */
  readonly scores: Float32Array;
  /** Hidden states of these rows, f32 [kept, d]. */
  hidden(): Matrix;
}

/** The place of a visual row: its grid, plane, row and column in a medium of the conversation. */
export interface VisualPlace {
  readonly medium: number;
  readonly grid: number;
  readonly t: number;
  readonly row: number;
  readonly col: number;
}

/** What `retrieve.frames` sees of a frame: a picture, a tile, a thumbnail, or one plane of a video. */
export interface FramePlace extends Pick<VisualPlace, 'medium' | 'grid' | 't'> {
  /** Number of its rows in the cache. */
  readonly rows: number;
}

/** Selects, from the pixels of a medium, the tokens that the tower computes. */
export interface Encode {
  /**
   * Returns the tokens of each grid of one medium, or of some frames of a film, that the tower computes, at least one each. The others are no keys for these, and no rows for the
   * decoder: `prune` sees zeros for them (salience, keys, features), and whatever it selects of them is left out.
   */
  select(grids: readonly PixelView[]): readonly Int32Array[];
}

/** What `reuse` sees of a frame in a block of the tower: the keys of its rows and of the rows of the reference, all heads side by side, f32 [rows, width]. */
export interface ReuseView {
  readonly layer: number;
  /** Number of layers of the tower. */
  readonly layers: number;
  /** Number of the frame's rows (patches). */
  readonly rows: number;
  readonly keys: Matrix;
  readonly reference: Matrix;
}

/** Reuses, in the blocks of the tower, what an earlier frame of the same film has computed. Pictures are computed whole. SigLIP towers only. */
export interface Reuse {
  /** Every n-th frame, from the first, is computed whole; it is the reference of those up to the next. */
  readonly every: number;
  /**
   * Returns the rows that a block computes, ascending: their attention, to all rows of their own frame, and their MLP. To each of the others the
   * block adds what it has added to the same row of the reference. Selecting all rows equals dense bit for bit.
   */
  select(view: ReuseView): Int32Array;
}

/** Selects tokens once per turn, after the tower and before the decoder; independently of the question, unless `question` is set. */
export interface Prune {
  /** Tower layers that `select` reads: integers, negative from the last; or shares of the depth between 0 and 1. */
  readonly taps?: { readonly salience?: readonly number[]; readonly keys?: readonly number[] };
  /** The rows that a merging method returns: tower features (the default), or rows that are already projected. */
  readonly rows?: 'features' | 'projected';
  /**
   * Whether `select` reads the question. Its tokens are then those of the turn's question: later turns find no others, and no other request
   * shares them. Default: false.
   */
  readonly question?: boolean;
  /**
   * What the choice among the tokens of a plane depends on: this plane alone ('plane'), or all media of the turn ('turn', the default). With
   * 'plane', `select` is called for planes as they come, so that only kept tokens of a film are held; otherwise the features of all are held.
   */
  readonly scope?: 'plane' | 'turn';
  /** Returns the kept tokens of each grid of the turn's media, or of the part of them that `scope` allows. */
  select(grids: readonly TowerView[]): readonly Selection[];
}

/** Selects visual rows between decoder layers, during the prefill of a turn with media. */
export interface Drop {
  /**
   * Decoder layers at which visual rows may be dropped: integers, or shares of the depth between 0 and 1. Shares are rounded, at least 1,
   * and each layer is above the one before it. Layers at or beyond the depth are left out.
   */
  readonly layers: readonly number[];
  /**
   * The layer whose attention `select` sees: the one that has just run ('previous', the default), or the one that comes next, computed
   * before anything is dropped ('next'; last row only).
   */
  readonly scores?: 'previous' | 'next';
  /**
   * Returns the question's rows whose attention `select` sees, as indices in the question, given the embeddings f32 [rows, d] of the
   * question and of the turn's visual tokens. Default: the last row.
   */
  raters?(question: Matrix, visual: Matrix): Int32Array;
  /**
   * Returns the visual rows of the turn that deeper layers keep, as indices among those kept so far. This is permanent: later turns find
   * only these rows, and do not drop more of them.
   */
  select(view: DropView): Selection;
}

/**
 * When rows are selected again while an answer is written; at least one of the two. The next token then attends all rows, and the relevance is the mean
 * of its attention and the question's. With `verify` every token attends all rows, and the attention of one pass's tokens counts.
 */
export interface Refresh {
  /** Number of the answer's tokens after which rows are selected again. */
  readonly every?: number;
  /** With `verify`: number of rejected drafts after which rows are selected again. */
  readonly rejected?: number;
}

/** Selects the visual rows that an answer attends, once per turn and layer, unless `refresh` says otherwise. */
export interface Retrieve {
  /** Number of the question's last rows whose attention is averaged into the relevance. Default: all. */
  readonly window?: number;
  /** Whether rows that are left out are removed from the cache. `select` is then called only for each turn's new media. Default: false. */
  readonly permanent?: boolean;
  /** Default: rows are selected once per turn. Not with `permanent` or `frames`. */
  readonly refresh?: Refresh;
  /**
   * First level of a retrieval in two levels: returns the frames whose rows the question and the answer attend in the layer, ascending. A
   * frame's score is the cosine of the mean of the question's queries and the mean of the frame's keys, all heads side by side, before
   * rotary embedding; see `frameKeys`. `select` then sees only the rows of these frames, so that a question costs as much as it has chosen. Not with `drop`
   * or `permanent`; where all of a prompt attends to itself (PaliGemma), `select` sees all rows.
   */
  frames?(scores: Float32Array, layer: number, frames: readonly FramePlace[]): Int32Array;
  /**
   * With `frames`: number of a frame's keys, those that differ most from their mean, that its score compares in place of the mean. The score is then
   * the sum over heads of the largest inner product with the question's mean query. So many keys of each frame are held in host memory as f32.
   */
  readonly frameKeys?: number;
  /**
   * With `frames`: number of the last frames that the rows before a question attend, besides all text. The prefill of a film then takes time in
   * proportion to its length, and the session's `kvBudget` can bound its memory. Default: all rows before them.
   */
  readonly localFrames?: number;
  /**
   * Returns the visual rows of the layer that the answer attends, ascending. `relevance` is the attention to each of them: softmax over
   * the full row, mean over heads and the question's rows. `total`: number of the layer's visual rows, those of other
   * frames included; default: as many as places.
   */
  select(relevance: Float32Array, layer: number, places: readonly VisualPlace[], total?: number): Int32Array;
}

/** What `bound` sees of the rows of a film in one layer, in the order of the film. */
export interface BoundView {
  readonly layer: number;
  readonly places: readonly VisualPlace[];
  /** Number of rows that stay. */
  readonly budget: number;
  /** Number of KV heads. */
  readonly heads: number;
  /** Their keys, after rotary embedding, and values: f32 [rows, heads, c]. */
  keys(): Matrix;
  values(): Matrix;
}

/** Bounds the rows of a film in the cache while it is read, in each layer that attends everything. */
export interface Bound {
  /** Number of frames after which rows are removed. */
  readonly every: number;
  /** Number of frames as many of whose rows stay: the budget is this number times the rows of the last frame. */
  readonly frames: number;
  /** Returns the rows that stay, ascending, `budget` at most. This is permanent. Called where there are more. */
  select(view: BoundView): Int32Array;
}

/** A method has any of its parts; dense has none. Keeping everything equals dense bit for bit. */
export interface SparsityMethod {
  readonly name: string;
  /**
   * Positions of kept visual tokens: 'original' (the default) gives each its position among all tokens of the medium, 'compact' renumbers
   * the kept tokens without gaps.
   */
  readonly positions?: 'original' | 'compact';
  /**
   * The share of its tokens, above 0 and at most 1, to which a medium is resized before it is laid out, if a smaller one has fewer tokens in
   * the model's family. Default: none.
   */
  readonly resize?: number;
  readonly encode?: Encode;
  /** Not with `encode`. */
  readonly reuse?: Reuse;
  readonly prune?: Prune;
  readonly drop?: Drop;
  readonly retrieve?: Retrieve;
  /** Not with `drop` or `retrieve.frames`. Without effect where all of a prompt attends to itself (PaliGemma). */
  readonly bound?: Bound;
}
