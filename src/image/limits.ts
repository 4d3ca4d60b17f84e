// Limits on the size of images, and the error for larger ones, which is thrown after reading the header, before anything is decoded.

import { SparseVilaError } from '../errors';

/**
 * 64 megapixels: above every full-frame camera (61) and a third of where Pillow refuses (179); 192 MB as RGB, about twice that
 * while decoding. No model sees more than a few megapixels. `maxPixels` raises it.
 */
export const DEFAULT_MAX_PIXELS = 64e6;

/** Longest side in pixels: what JPEG can hold. Bounds the resampler's tables on strips. */
export const MAX_SIDE = 65_535;

/**
 * Refuses more than `maxPixels` pixels or a side above MAX_SIDE; `name` is the image's name in the error.
 * @throws SparseVilaError ERR_IMAGE_TOO_LARGE
 */
export function checkSize(width: number, height: number, maxPixels: number, name: string): void {
  if (width * height <= maxPixels && width <= MAX_SIDE && height <= MAX_SIDE) return;
  const limit = width * height > maxPixels ? `at most ${maxPixels} pixels` : `sides of at most ${MAX_SIDE} pixels`;
  throw new SparseVilaError(
    'ERR_IMAGE_TOO_LARGE',
    `Expected ${limit} for ${name} but received ${width}×${height} = ${width * height}; scale it down first` +
      `${width * height > maxPixels ? ', or raise maxPixels (--max-pixels on the command line).' : '.'}`,
  );
}
