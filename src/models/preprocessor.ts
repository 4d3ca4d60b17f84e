// What image processors of several families say alike in preprocessor_config.json.
// Source: transformers 5.24 `image_processing_utils.py`, `image_transforms.py` (rescale, normalize).

import type { Rgb } from '../image/canvas';
import type { Normalization } from '../image/preprocess';
import type { ConfigReader } from '../json';

/** How bytes become numbers. @throws SparseVilaError `ERR_CONFIG_INVALID` for mean or std that are not three numbers */
export function parseNormalization(images: ConfigReader): Normalization {
  const three = (key: string, accepts: (value: number) => boolean, expected: string): Rgb => {
    const value = images.json[key];
    if (Array.isArray(value) && value.length === 3 && value.every((one) => Number.isFinite(one) && accepts(one)))
      return value as unknown as Rgb;
    throw images.wrong(key, expected);
  };
  return {
    rescaleFactor: images.float('rescale_factor', 1 / 255),
    mean: three('image_mean', () => true, 'three numbers'),
    std: three('image_std', (value) => value > 0, 'three numbers above 0'),
  };
}
