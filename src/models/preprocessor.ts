// Settings of preprocessor_config.json that the image processors of several families share.
// Source: transformers 5.24 `image_processing_utils.py`, `image_transforms.py` (rescale, normalize).

import type { Rgb } from '../image/canvas';
import { type Normalization, PIL_FILTERS } from '../image/preprocessor_config';
import type { ResampleFilter } from '../image/resample';
import type { ConfigReader } from '../json';

/** `resample`, a number of PIL.Image.Resampling. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` */
export function parseFilter(images: ConfigReader): ResampleFilter {
  const filter = PIL_FILTERS.get(images.number('resample', 3));
  if (filter === undefined) throw images.unsupported('resample', '1 (lanczos), 2 (bilinear) or 3 (bicubic)');
  return filter;
}

/**
 * The rescaling and normalization of pixel values.
 * @throws SparseVilaError `ERR_CONFIG_INVALID` for a mean or std that is not three numbers, and for numbers that become 0 or Infinity in f32
 */
export function parseNormalization(images: ConfigReader): Normalization {
  const three = (key: string, accepts: (value: number) => boolean, expected: string): Rgb => {
    const value = images.json[key];
    if (Array.isArray(value) && value.length === 3 && value.every((one) => Number.isFinite(one) && accepts(one)))
      return value as unknown as Rgb;
    throw images.wrong(key, expected);
  };
  const rescaleFactor = images.float('rescale_factor', 1 / 255);
  if (rescaleFactor === 0) throw images.wrong('rescale_factor', 'a number above 0');
  const mean = three('image_mean', () => true, 'three numbers');
  const std = three('image_std', (value) => Math.fround(value) > 0, 'three numbers above 0 that f32 holds');
  const isSafe = ([0, 255] as const).every((byte) =>
    std.every((deviation, c) => Number.isFinite(Math.fround((byte * rescaleFactor - (mean[c] as number)) / deviation))),
  );
  if (!isSafe)
    throw images.wrong('image_std', 'numbers that leave pixels finite in f32, with rescale_factor and image_mean');
  return { rescaleFactor, mean, std };
}
