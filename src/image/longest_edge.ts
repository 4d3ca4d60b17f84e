// The size to which SmolVLM's and Idefics3's processors resize a picture first: its longest edge is given.
// Source: transformers 5.24 `image_processing_pil_smolvlm.py` (_resize_output_size_rescale_to_max_len, _resize_output_size_scale_below_upper_bound).

import type { Size } from './cells';

/** Maximum side of a resized picture. */
export const MAX_SIDE = 4096;

/** The size with the given longest edge; the other side is truncated and made even. Both are then at most MAX_SIDE. */
export function withLongestEdge({ width, height }: Size, longest: number): Size {
  const ratio = width / height;
  const even = (side: number): number => Math.max(1, side + (side % 2));
  const size =
    width >= height
      ? { width: longest, height: even(Math.trunc(longest / ratio)) }
      : { width: even(Math.trunc(longest * ratio)), height: longest };
  if (Math.max(size.width, size.height) <= MAX_SIDE) return size;
  const again = size.width / size.height;
  return size.width >= size.height
    ? { width: MAX_SIDE, height: Math.max(1, Math.trunc(MAX_SIDE / again)) }
    : { width: Math.max(1, Math.trunc(MAX_SIDE * again)), height: MAX_SIDE };
}
