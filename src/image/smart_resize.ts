// The size to which Qwen's processors resize a picture: both sides multiples of a factor, the area within limits, the aspect ratio
// approximately kept. Source: transformers 5.24 `image_processing_pil_qwen2_vl.py` (smart_resize).

import { SparseVilaError } from '../errors';
import type { Size } from './cells';

/** Minimum and maximum number of pixels. */
export interface AreaLimits {
  readonly min: number;
  readonly max: number;
}

const MAX_RATIO = 200;

/** @throws SparseVilaError `ERR_IMAGE_TOO_LARGE` for sides that differ by more than a factor of 200 */
export function smartResize(size: Size, factor: number, limits: AreaLimits): Size {
  return resized(size, factor, limits, { frames: 1, rounded: 1 });
}

/**
 * The same for the frames of a video as Qwen3-VL has it: the limits are those of all frames together, and small frames are enlarged to the
 * factor first. Source: transformers 5.24 `video_processing_qwen3_vl.py` (smart_resize), which refuses a video of one frame; here it counts as a pair.
 * @param span frames of one plane, of which a whole number is counted
 */
export function smartResizeVideo(
  { width, height }: Size,
  given: number,
  { factor, span }: { readonly factor: number; readonly span: number },
  limits: AreaLimits,
): Size {
  const frames = Math.max(given, span);
  const scale = height < factor || width < factor ? Math.max(factor / height, factor / width) : 1;
  const size = { width: Math.trunc(width * scale), height: Math.trunc(height * scale) };
  return resized(size, factor, limits, { frames, rounded: halfEven(frames / span) * span });
}

function resized(
  { width, height }: Size,
  factor: number,
  { min, max }: AreaLimits,
  { frames, rounded }: { readonly frames: number; readonly rounded: number },
): Size {
  if (Math.max(width, height) / Math.min(width, height) > MAX_RATIO) {
    throw new SparseVilaError(
      'ERR_IMAGE_TOO_LARGE',
      `Expected an image whose sides differ at most by a factor of ${MAX_RATIO}, as this model takes them, received ${width}×${height}. Crop it, or pad it to a wider shape.`,
    );
  }
  const each = (side: (length: number) => number): Size => ({ width: side(width), height: side(height) });
  const nearest = each((length) => halfEven(length / factor) * factor);
  const area = rounded * nearest.width * nearest.height;
  if (area > max) {
    const beta = Math.sqrt((frames * height * width) / max);
    return each((length) => Math.max(factor, Math.floor(length / beta / factor) * factor));
  }
  if (area >= min) return nearest;
  const beta = Math.sqrt(min / (frames * height * width));
  return each((length) => Math.ceil((length * beta) / factor) * factor);
}

/** Python's round: half to even. */
export function halfEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}
