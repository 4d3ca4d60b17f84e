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
export function smartResize({ width, height }: Size, factor: number, { min, max }: AreaLimits): Size {
  if (Math.max(width, height) / Math.min(width, height) > MAX_RATIO) {
    throw new SparseVilaError(
      'ERR_IMAGE_TOO_LARGE',
      `Expected an image whose sides differ at most by a factor of ${MAX_RATIO}, as this model takes them, received ${width}×${height}.`,
    );
  }
  const each = (side: (length: number) => number): Size => ({ width: side(width), height: side(height) });
  const nearest = each((length) => halfEven(length / factor) * factor);
  const area = nearest.width * nearest.height;
  if (area > max) {
    const beta = Math.sqrt((height * width) / max);
    return each((length) => Math.max(factor, Math.floor(length / beta / factor) * factor));
  }
  if (area >= min) return nearest;
  const beta = Math.sqrt(min / (height * width));
  return each((length) => Math.ceil((length * beta) / factor) * factor);
}

/** Python's round: half to even. */
export function halfEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}
