// Shared by Qwen's families: settings of their processors, and pictures and videos as patches over frame pairs in blocks of merged tokens.
// Source: transformers 5.24 `image_processing_pil_qwen2_vl.py`, `video_processing_qwen2_vl.py`, `vision_utils.py` (get_vision_window_index).

import type { Draw } from '../image/canvas';
import { evenCells, type Size } from '../image/cells';
import { DEFAULT_MAX_PIXELS } from '../image/limits';
import type { Normalization } from '../image/preprocessor_config';
import type { ResampleFilter } from '../image/resample';
import { type AreaLimits, smartResize } from '../image/smart_resize';
import type { ConfigReader } from '../json';
import type { RowMap } from './media';
import { MARKER, type MediumLayout, type MediumSize, type Patches } from './media';
import type { NameRule } from './names';
import { prefixed } from './names';
import { parseFilter, parseNormalization } from './preprocessor';

/** The form in which a tower sees media. */
export interface QwenShape {
  /** Side of a patch in pixels, and number of frames that it covers. */
  readonly patch: number;
  readonly frames: number;
  /** Number of patches per side of the block that becomes one token. */
  readonly merge: number;
  /** Number of tokens per side of a window; undefined: no windows. */
  readonly window: number | undefined;
}

/** The settings of a `vision_config`, without windows. @throws SparseVilaError `ERR_CONFIG_INVALID`, `ERR_CONFIG_UNSUPPORTED` */
export function qwenShape(vision: ConfigReader): QwenShape {
  if (vision.size('in_channels') !== 3) throw vision.unsupported('in_channels', '3');
  return {
    patch: vision.size('patch_size'),
    frames: vision.size('temporal_patch_size'),
    merge: vision.size('spatial_merge_size'),
    window: undefined,
  };
}

/** The resizing of the processor of one kind of media. */
export interface QwenResize {
  readonly limits: AreaLimits;
  readonly filter: ResampleFilter;
}

/** What Qwen's processors share; frames are already sampled. */
export const QWEN_STEPS = {
  steps: ['do_resize', 'do_rescale', 'do_normalize'],
  ignored: ['do_pad', 'do_sample_frames'],
} as const;

/** Old files say only in `text_config` that embedding and head are one matrix. */
export const isTiedInText = (root: ConfigReader): boolean =>
  root.object('text_config')?.boolean('tie_word_embeddings', false) ?? false;

/** Limits and filter of a processor, whose patches must match the tower's. @throws SparseVilaError `ERR_CONFIG_…` */
export function qwenResize(config: ConfigReader, { patch, frames, merge }: QwenShape): QwenResize {
  const sizes = { patch_size: patch, merge_size: merge, temporal_patch_size: frames };
  for (const [key, expected] of Object.entries(sizes))
    if (config.size(key, expected) !== expected) throw config.wrong(key, `${expected}, as in vision_config`);
  const size = config.object('size');
  // Old files have the limits beside "size" or in it; those beside it take precedence.
  const limit = (side: string, pixels: string, most?: number): number => {
    if (config.has(pixels)) return config.size(pixels, undefined, most);
    const name = [side, pixels].find((key) => size?.has(key));
    if (size === undefined || name === undefined)
      throw config.wrong('size', 'shortest_edge and longest_edge, in pixels');
    return size.size(name, undefined, most);
  };
  // Smaller pictures are enlarged to the minimum, so it must fit on a canvas.
  const limits = {
    min: limit('shortest_edge', 'min_pixels', DEFAULT_MAX_PIXELS),
    max: limit('longest_edge', 'max_pixels'),
  };
  return { limits, filter: parseFilter(config) };
}

/** How bytes become numbers, for pictures and videos alike. @throws SparseVilaError `ERR_CONFIG_…` */
export function qwenPixels(pictures: ConfigReader, videos: ConfigReader): Normalization {
  const [own, other] = [parseNormalization(pictures), parseNormalization(videos)];
  if (JSON.stringify(own) !== JSON.stringify(other))
    throw videos.unsupported('image_mean', `mean, deviation and factor as for pictures (${own.mean}; ${own.std})`);
  return own;
}

/**
 * The base of a tower's rotations: `rope_parameters.rope_theta`, 1e4 where it is absent.
 * @throws SparseVilaError `ERR_CONFIG_INVALID`, `ERR_CONFIG_UNSUPPORTED` for rotations that are scaled
 */
export function qwenTowerTheta(vision: ConfigReader): number {
  const rope = vision.object('rope_parameters');
  if (rope === undefined) return 1e4;
  if (!['axial', 'default'].includes(rope.string('rope_type', 'axial'))) throw rope.unsupported('rope_type', 'axial');
  const theta = rope.float('rope_theta', 1e4);
  if (theta <= 0) throw rope.wrong('rope_theta', 'a number above 0');
  return theta;
}

/** The tower of Qwen's families: the names in `visual.` or `model.visual.`, except those of its merger. */
export const QWEN_TOWER_NAMES: readonly NameRule[] = prefixed(/^(?:model\.)?visual\./, [
  [/(?:blocks\.\d+\.attn\.)?(?:rotary_pos_emb\.|rotary_emb\.)inv_freq$/, 'unread.$&'],
  [/patch_embed\.proj\./, 'tower.embeddings.patch_embedding.'],
  [/pos_embed\./, 'tower.embeddings.position_embedding.'],
  [/blocks\.(\d+)\.norm([12])\./, 'tower.encoder.layers.$1.layer_norm$2.'],
  [/blocks\.(\d+)\.attn\.qkv\./, 'tower.encoder.layers.$1.self_attn.qkv.'],
  [/blocks\.(\d+)\.attn\.proj\./, 'tower.encoder.layers.$1.self_attn.out_proj.'],
  [/blocks\.(\d+)\.mlp\.(?:linear_)?(\w+)\./, 'tower.encoder.layers.$1.mlp.$2.'],
]);

/**
 * The layout of a picture or video of one size: frames in pairs (a picture, and the last of an odd number of frames, is paired with itself),
 * patches block by block of a merged token, in the order of the tower's windows.
 */
export function qwenLayout(
  size: MediumSize,
  shape: QwenShape,
  { limits, filter }: QwenResize,
  to: Size = smartResize(size, shape.patch * shape.merge, limits),
): MediumLayout {
  const { patch, frames, merge } = shape;
  const [h, w] = [to.height / (patch * merge), to.width / (patch * merge)];
  const t = Math.ceil(size.frames / frames);
  const step: Draw = { step: 'resize', to, filter };
  const { patches, order } = blockPatches({ t, h, w }, shape);
  return {
    kind: size.kind,
    canvases: Array.from({ length: t * frames }, (_, i) => ({ frame: Math.min(i, size.frames - 1), steps: [step] })),
    patches,
    merge: unordered(order, merge ** 2),
    grids: [{ t, h, w, cells: evenCells(size, h, w), frames: Array.from({ length: t }, (_, i) => i * frames) }],
    runs: [{ grid: 0, from: 0, to: t * h * w }],
    text: MARKER,
  };
}

/** The patches of t planes of h × w tokens, and for each block of them the raster index of its token. */
function blockPatches(
  { t, h, w }: { readonly t: number; readonly h: number; readonly w: number },
  { patch, frames, merge, window }: QwenShape,
): { patches: Patches; order: number[] } {
  const span = window ?? Math.max(h, w);
  const order: number[] = [];
  const corners: number[] = [];
  const windows = [0];
  const block = (plane: number, row: number, col: number): void => {
    order.push((plane * h + row) * w + col);
    for (let part = 0; part < merge * merge; part++) {
      const [y, x] = [row * merge + Math.floor(part / merge), col * merge + (part % merge)];
      corners.push(plane * frames, y * patch, x * patch);
    }
  };
  for (let plane = 0; plane < t; plane++)
    for (let top = 0; top < h; top += span)
      for (let left = 0; left < w; left += span) {
        for (let row = top; row < Math.min(top + span, h); row++)
          for (let col = left; col < Math.min(left + span, w); col++) block(plane, row, col);
        windows.push(corners.length / 3);
      }
  const segments = Int32Array.from({ length: t + 1 }, (_, plane) => plane * h * w * merge * merge);
  const patches = { corners: Int32Array.from(corners), segments };
  return { patches: window === undefined ? patches : { ...patches, windows: Int32Array.from(windows) }, order };
}

/** The row map to tokens in raster order, each the concatenation of the `parts` rows of its block; `order` is the tower's order of blocks. */
function unordered(order: readonly number[], parts: number): RowMap {
  const from = new Int32Array(order.length * parts);
  for (const [seen, token] of order.entries())
    for (let part = 0; part < parts; part++) from[token * parts + part] = seen * parts + part;
  return { rows: order.length, parts, taps: 1, from };
}
