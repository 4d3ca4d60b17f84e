// The layout of an image or video, decided from sizes alone: the canvases to draw, the patches that the tower runs over, how patches become
// tokens, and the tokens' places in the prompt. No pixels, no weights, no tensors.

import type { Draw } from '../image/canvas';
import type { CellGeometry, Size } from '../image/cells';
import type { ImageInput, RgbImage } from '../image/decode';
import type { FilmInput } from '../video/source';

/** Stands for one run of visual rows in a layout's text; the model's own marker token replaces it. */
export const MARKER = '\uFFFC';

/** What is known of the times of a video's frames. Used by models that read times as text or whose positions count seconds. */
export interface FrameTimes {
  /** Frames per second of the list; absent: that of `times`, or 24, as in transformers. */
  readonly fps?: number;
  /** The time of each frame in seconds, ascending; absent: the first frame at 0, and `fps` frames per second. */
  readonly times?: readonly number[];
  /** Seconds of the whole video; absent: the time of the last frame. */
  readonly duration?: number;
}

/** The frames of a video, already sampled, in order. */
export interface FrameList extends FrameTimes {
  readonly frames: readonly ImageInput[];
}

/** Frames that come one by one, such as those of a camera: they are read to their end, or until there are `maxFrames`. */
export interface FrameStream extends Pick<FrameTimes, 'fps'> {
  readonly frames: AsyncIterable<ImageInput>;
  /** Default 768. */
  readonly maxFrames?: number;
}

/** A film, of which the family's rule chooses frames. */
export interface FilmFile {
  /** A path, URL, bytes or stream of a video file, or of an animated GIF, WebP or PNG. */
  readonly file: FilmInput;
  /** The segment that is looked at, in seconds from the first frame; default all of it. `to` is not part of it. */
  readonly from?: number;
  readonly to?: number;
  /** Frames to take per second, and at most; default those of the model. */
  readonly fps?: number;
  readonly maxFrames?: number;
  /** Called after each decoded frame. */
  readonly onProgress?: (progress: { readonly done: number; readonly total: number }) => void;
}

export type VideoInput = FrameList | FrameStream | FilmFile;

export type MediaInput =
  | { readonly kind: 'image'; readonly image: ImageInput }
  | { readonly kind: 'video'; readonly video: VideoInput };

/** The sizes from which a layout is made. Width and height are those of one frame, in pixels. */
export interface MediumSize extends Size, FrameTimes {
  readonly kind: 'image' | 'video';
  readonly frames: number;
}

/** How many media a turn has, and how many of them are images; by default all. */
export interface TurnMedia {
  readonly media: number;
  readonly images?: number;
}

/** One canvas that the tower sees. */
export interface Canvas {
  /** Index of the frame from which it is drawn. */
  readonly frame: number;
  readonly steps: readonly Draw[];
}

/** The patches of a medium in the order in which the tower sees them. */
export interface Patches {
  /** int32 [n, 3]: canvas (of several frames the first), top and left of each patch, in pixels. */
  readonly corners: Int32Array;
  /** Boundaries, from 0 to n, of the groups of patches that attend to each other: one tile or one frame each. */
  readonly segments: Int32Array;
  /**
   * int32 [segments, 2]: the top and left, in pixels, of the last row and column of each segment, where patches were left out; absent: they are those
   * of the patches.
   */
  readonly extents?: Int32Array;
  /** Boundaries, from 0 to n, of windows inside the segments, for towers with layers that attend within windows. */
  readonly windows?: Int32Array;
}

/** A row map: output row i is the concatenation of `parts` weighted sums of `taps` input rows each. */
export interface RowMap {
  readonly rows: number;
  readonly parts: number;
  readonly taps: number;
  /** int32 [rows, parts, taps], indices of input rows; -1 stands for a row of zeros. */
  readonly from: Int32Array;
  /** f32 [rows, parts, taps]; absent if every weight is 1. */
  readonly weights?: Float32Array;
}

/** t planes of h × w tokens in raster order, plane after plane, and the regions of the frames that they show. */
export interface Grid {
  readonly t: number;
  readonly h: number;
  readonly w: number;
  readonly cells: CellGeometry;
  /** The first frame of each plane. */
  readonly frames: readonly number[];
}

/** Consecutive visual rows of the prompt: tokens from … to - 1 of the medium, between texts that are never pruned. */
export interface Run {
  /** The grid that the tokens belong to. */
  readonly grid: number;
  readonly from: number;
  readonly to: number;
  /** Texts before and after the rows, each tokenized separately from the prompt's text; absent: none. */
  readonly before?: string;
  readonly after?: string;
  /** How many times the plan's learned `newline` row follows, after `after`. */
  readonly newlines?: number;
}

export interface MediumLayout {
  readonly kind: 'image' | 'video';
  readonly canvases: readonly Canvas[];
  readonly patches: Patches;
  /** The row map from the tower's rows, segment after segment, to tokens, which may be pruned. */
  readonly merge: RowMap;
  /** For a model that pools after its projector, the row map from the projector's rows to tokens; `merge` then makes the projector's input. */
  readonly pool?: RowMap;
  /** The grids; their tokens are numbered consecutively. */
  readonly grids: readonly Grid[];
  readonly runs: readonly Run[];
  /** The text that replaces the placeholder in the prompt, with one MARKER per run. */
  readonly text: string;
  /** Number of tokens, divided by what the medium would have if it had not been resized first; absent: it was not. */
  readonly share?: number;
  /** Difference of positions on the time axis between planes, if positions have three axes; need not be an integer. Default 1. */
  readonly planeStep?: number;
}

/** A medium that is laid out, and whose pixels are drawn or can be. */
export interface PreparedMedium {
  readonly layout: MediumLayout;
  /** What the layout was made from: the sizes of the medium, and how many media its message has. */
  readonly made: { readonly size: MediumSize; readonly turn: TurnMedia };
  /** uint8, one image for each canvas of the layout; none of a film, whose canvases are drawn as its frames are decoded. */
  readonly canvases: readonly RgbImage[];
  readonly film?: FilmCanvases;
}

/** The canvases of a video whose frames can be read again: they are not kept, so that a long film takes no more memory than a short one. */
export interface FilmCanvases {
  /** Draws them in the order of the layout; each reading decodes the frames anew. @throws SparseVilaError `ERR_VIDEO_…`; `signal.reason` */
  draw(signal: AbortSignal | undefined): AsyncGenerator<RgbImage>;
  /** A text that is equal for films of equal frames. */
  content(): string;
  /** Bytes that are held for reading it. */
  readonly bytes: number;
}

/** The canvases of a medium in the order of its layout. @throws as `FilmCanvases.draw` */
export async function* canvasesOf(
  { canvases, film }: PreparedMedium,
  signal: AbortSignal | undefined,
): AsyncGenerator<RgbImage> {
  if (film === undefined) yield* canvases;
  else yield* film.draw(signal);
}

/** The number of tokens in one plane of a grid. */
export function planeTokens({ h, w }: Pick<Grid, 'h' | 'w'>): number {
  return h * w;
}

/** The number of tokens of a medium before pruning. */
export function tokensOf({ grids }: Pick<MediumLayout, 'grids'>): number {
  return grids.reduce((sum, { t, h, w }) => sum + t * h * w, 0);
}

/** Frames per second of a video of unknown rate, as in transformers. */
const DEFAULT_FPS = 24;

/** The time of each frame in seconds. */
export function timesOf({ frames, fps = DEFAULT_FPS, times }: MediumSize): readonly number[] {
  return times ?? Array.from({ length: frames }, (_, frame) => frame / fps);
}

/** Frames per second. */
export function rateOf({ fps, times = [] }: FrameTimes): number {
  const span = (times.at(-1) ?? 0) - (times[0] ?? 0);
  return fps ?? (span > 0 ? (times.length - 1) / span : DEFAULT_FPS);
}
