// What one image or video becomes, as data that is decided from sizes alone: which canvases are drawn, which patches the tower runs over,
// how patches become tokens, and how tokens stand in the prompt. No pixels, no weights, no tensors.

import type { Draw } from '../image/canvas';
import type { CellGeometry, Size } from '../image/cells';
import type { ImageInput, RgbImage } from '../image/decode';

/** Stands for one run of visual rows in a layout's text; the model's own marker token takes its place. */
export const MARKER = '\uFFFC';

/** The frames of a video, in order, as sampled already. */
export interface VideoInput {
  readonly frames: readonly ImageInput[];
  /** Frames per second, as sampled. Models whose positions count seconds read it; absent: their processor's default. */
  readonly fps?: number;
}

export type MediaInput =
  | { readonly kind: 'image'; readonly image: ImageInput }
  | { readonly kind: 'video'; readonly video: VideoInput };

/** Everything a layout is made from. Width and height are those of one frame, in pixels. */
export interface MediumSize extends Size {
  readonly kind: 'image' | 'video';
  readonly frames: number;
  /** Of a video, where given. */
  readonly fps?: number;
}

/** One canvas that the tower sees. */
export interface Canvas {
  /** The frame it is drawn from. */
  readonly frame: number;
  readonly steps: readonly Draw[];
}

/** The patches of a medium in the order in which the tower sees them. */
export interface Patches {
  /** int32 [n, 3]: canvas (of several frames the first), top and left of each patch, in pixels. */
  readonly corners: Int32Array;
  /** Borders, from 0 to n, of the patches that attend to each other: one tile or one frame each. */
  readonly segments: Int32Array;
  /** Borders, from 0 to n, of smaller windows, which never lie across two segments; for towers with layers that attend within them. */
  readonly windows?: Int32Array;
}

/** Rows made from rows: output row i is `parts` weighted sums of `taps` input rows each, side by side. */
export interface RowMap {
  readonly rows: number;
  readonly parts: number;
  readonly taps: number;
  /** int32 [rows, parts, taps], indices of input rows; -1 stands for a row of zeros. */
  readonly from: Int32Array;
  /** f32 [rows, parts, taps]; absent where every weight is 1. */
  readonly weights?: Float32Array;
}

/** t planes of h × w tokens in raster order, plane after plane, and where they lie on the frames that they show. */
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
  /** Texts around the rows, each tokenized by itself, unlike the text of the prompt; absent: none. */
  readonly before?: string;
  readonly after?: string;
}

export interface MediumLayout {
  readonly kind: 'image' | 'video';
  readonly canvases: readonly Canvas[];
  readonly patches: Patches;
  /** From the tower's rows, segment after segment, to tokens: what may be pruned. */
  readonly merge: RowMap;
  /** From the projector's rows to tokens, for a model that pools after its projector; `merge` then makes the projector's rows. */
  readonly pool?: RowMap;
  /** Tokens are numbered through, grid after grid. */
  readonly grids: readonly Grid[];
  readonly runs: readonly Run[];
  /** What takes the placeholder's place in the prompt: text with one MARKER per run. */
  readonly text: string;
  /** Positions on the axis of time from a plane to the next, where positions have three axes; not always whole. Default 1. */
  readonly planeStep?: number;
}

/** A medium whose pixels have been drawn. */
export interface PreparedMedium {
  readonly layout: MediumLayout;
  /** uint8, one for each canvas of the layout. */
  readonly canvases: readonly RgbImage[];
}

/** The tokens of one plane of a grid. */
export function planeTokens({ h, w }: Pick<Grid, 'h' | 'w'>): number {
  return h * w;
}

/** The tokens of a medium, before any is pruned. */
export function tokensOf({ grids }: Pick<MediumLayout, 'grids'>): number {
  return grids.reduce((sum, { t, h, w }) => sum + t * h * w, 0);
}
