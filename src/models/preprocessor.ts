// Settings of preprocessor_config.json that the image processors of several families share.
// Source: transformers 5.24 `image_processing_utils.py`, `image_transforms.py` (rescale, normalize).

import type { Rgb } from '../image/canvas';
import type { Size } from '../image/cells';
import { type Normalization, PIL_FILTERS } from '../image/preprocessor_config';
import type { ResampleFilter } from '../image/resample';
import { type ConfigReader, configReader, type Json } from '../json';

/** What a family supports of its image processor. */
export interface ProcessorSpec {
  /** Names of the classes, without ImageProcessor, VideoProcessor or FeatureExtractor. */
  readonly classes: readonly string[];
  /** The defaults of the class; a file holds only the differences. */
  readonly defaults: Json;
  /** Steps `do_…` that are done, and those that make no difference here. Any other step is refused. */
  readonly steps: readonly string[];
  readonly ignored?: readonly string[];
}

/** The settings of an image processor over the defaults of its class. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for another class or step */
export function processorSettings(
  images: ConfigReader,
  { classes, defaults, steps, ignored }: ProcessorSpec,
): ConfigReader {
  const known = new RegExp(`^(${classes.join('|')})(ImageProcessor|VideoProcessor|FeatureExtractor)(Fast|Pil)?$`);
  for (const key of ['image_processor_type', 'video_processor_type', 'feature_extractor_type'])
    if (images.has(key) && !known.test(images.string(key)))
      throw images.unsupported(key, classes.map((name) => `${name}ImageProcessor`).join(' or '));
  for (const key of Object.keys(images.json)) {
    const isStep = steps.includes(key);
    if (!key.startsWith('do_') || key === 'do_convert_rgb' || ignored?.includes(key)) continue;
    if (images.boolean(key, isStep) !== isStep) throw images.unsupported(key, `${isStep}`);
  }
  const given = Object.entries(images.json).filter(([, value]) => value !== null);
  return configReader({ ...defaults, ...Object.fromEntries(given) }, images.file);
}

/** CLIP's mean and deviation of pixels, which many processor classes have by default. */
export const CLIP_PIXELS = {
  image_mean: [0.48145466, 0.4578275, 0.40821073],
  image_std: [0.26862954, 0.26130258, 0.27577711],
} as const;

/** A size in a processor's settings: a number (old files) or { shortest_edge }; or { height, width }. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` */
export function parseSize(images: ConfigReader, key: string): Size | { readonly edge: number } {
  if (typeof images.json[key] === 'number') return { edge: images.size(key) };
  const given = images.object(key);
  const keys = Object.keys(given?.json ?? {}).filter((name) => given?.has(name));
  const isAll = (...names: string[]): boolean =>
    names.length === keys.length && names.every((one) => keys.includes(one));
  if (given !== undefined && isAll('shortest_edge')) return { edge: given.size('shortest_edge') };
  if (given !== undefined && isAll('height', 'width'))
    return { height: given.size('height'), width: given.size('width') };
  throw images.unsupported(key, 'a number, {shortest_edge}, or {height, width}');
}

/** Requires a processor's size to be a square of the tower's. @throws SparseVilaError `ERR_CONFIG_…` */
export function requireSquare(images: ConfigReader, key: string, side: number): void {
  const size = parseSize(images, key);
  const { height, width } = 'edge' in size ? { height: size.edge, width: size.edge } : size;
  if (height !== side || width !== side) throw images.wrong(key, `a square of the tower's image_size ${side}`);
}

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

/** Requires that pictures and frames are normalized equally. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` */
export function requireSamePixels(images: ConfigReader, videos: ConfigReader): void {
  const read = (settings: ConfigReader): string =>
    JSON.stringify([parseNormalization(settings), parseFilter(settings)]);
  if (read(videos) !== read(images))
    throw videos.unsupported('image_mean', 'with image_std, rescale_factor and resample, what images have');
}
