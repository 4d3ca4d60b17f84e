// Decodes any image input to 8-bit RGB: decoding (by sharp, which is used for nothing else here), orientation, color space, alpha. Knows
// nothing about models, their input sizes, or resampling.
// Source: Pillow's Image.open(..).convert("RGB"), which the models' own processors use; equal bit for bit for 8-bit JPEG, PNG, WebP, GIF and
// TIFF. Differences: orientation, embedded non-sRGB profiles and alpha are honored (Pillow ignores all three), CMYK is converted by a
// profile (Pillow: r = 255 - min(255, c + k)), 16-bit gray is x >> 8 (Pillow clips), AVIF chroma differs.

import { types } from 'node:util';
import { abortable } from '../abort';
import { type Check, COUNT, checkOptions, guardedCallback, integer, SIGNAL } from '../options';
import { DECODE_MEMORY, memoryBudget } from './budget';
import type { AllowUrls } from './fetch';
import { corrupt, inspect, type Treatment } from './header';
import { described, type ImageInput, type RawPixels, sourceOf } from './input';
import { checkSize, DEFAULT_MAX_PIXELS } from './limits';
import { sharp } from './sharp';
import { type ImageFile, openImage, type SourceOptions } from './source';
import { invalid } from './text';

export type { AllowUrls } from './fetch';
export type { ImageInput, RawPixels } from './input';
export { DEFAULT_MAX_PIXELS, MAX_SIDE } from './limits';

/** 8-bit sRGB; data is HWC, width·height·3 bytes. */
export interface RgbImage {
  data: Uint8Array;
  width: number;
  height: number;
}

export interface DecodeOptions {
  /** Color under transparent pixels, each channel 0..255; default white. */
  readonly background?: readonly [number, number, number] | undefined;
  /** Images with more pixels are refused after reading their header; default DEFAULT_MAX_PIXELS. */
  readonly maxPixels?: number | undefined;
  /** Whether images may be fetched from http(s) URLs; default false. */
  readonly allowUrls?: AllowUrls | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Decodes `input` to 8-bit RGB, HWC uint8.
 *
 * EXIF orientation is applied; gray is repeated; CMYK and profiles other than sRGB are converted to sRGB (lcms, perceptual);
 * 16 bit becomes 8 by x >> 8 without any gamma; of an animation or multi-page file the first picture is taken. Alpha is
 * composited in the encoded values, `out = round((c·a + b·(255 - a)) / 255)`, by the integer form
 * `t = c·a + b·(255 - a) + 128, out = (t + (t >> 8)) >> 8` (Pillow's paste with a mask).
 * Damage that libjpeg, libpng etc. report as an error is refused, truncation always; damage that they only warn about decodes, as in Pillow.
 *
 * @throws SparseVilaError ERR_IMAGE_INVALID (type, raw pixels), ERR_IMAGE_NOT_FOUND, ERR_IMAGE_UNREADABLE, ERR_IMAGE_EMPTY, ERR_IMAGE_UNSUPPORTED,
 *   ERR_IMAGE_CORRUPT, ERR_IMAGE_TOO_LARGE, ERR_IMAGE_URL, ERR_IMAGE_FETCH, ERR_OPTION_INVALID; `signal.reason` once aborted (a running
 *   decode ends in the background)
 */
export function decodeImage(input: ImageInput, options: DecodeOptions = {}): Promise<RgbImage> {
  return withImage(input, options, (image) => image);
}

/**
 * Calls `use` with the decoded image. All images that are decoded or used at the same time share one memory budget, DECODE_MEMORY; further
 * ones wait for their turn. `use` must not wait for another image.
 * @throws as `decodeImage`, and errors of `use`
 */
export async function withImage<T>(
  input: ImageInput,
  options: DecodeOptions,
  use: (image: RgbImage) => T | Promise<T>,
): Promise<T> {
  const { background, maxPixels, allowUrls, signal } = readOptions(options);
  signal?.throwIfAborted();
  const source = sourceOf(input);
  if (source.kind === 'pixels') return use(toRgb(checkRaw(source.pixels, maxPixels), background));
  const limits = { maxBytes: maxPixels * MOST_BYTES_PER_PIXEL + MOST_METADATA, allowUrls, signal };
  return abortable(decodeInTurn(source, limits, { background, maxPixels }, use), signal);
}

/** Bytes per pixel of 16-bit samples in four channels, uncompressed. */
const MOST_BYTES_PER_PIXEL = 8;
/** Bytes for profiles, thumbnails and later frames, in addition to the first frame's pixels. */
const MOST_METADATA = 2 ** 26;

const memory = memoryBudget(DECODE_MEMORY);

interface Samples {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
  channels: number;
}

async function decodeInTurn<T>(
  source: Parameters<typeof openImage>[0],
  limits: SourceOptions,
  { background, maxPixels }: { background: readonly [number, number, number]; maxPixels: number },
  use: (image: RgbImage) => T | Promise<T>,
): Promise<T> {
  const { signal } = limits;
  const read = await openImage(source, limits);
  const look = async () => {
    const file = await read();
    signal?.throwIfAborted();
    const { cost, ...treatment } = await inspect(file, maxPixels);
    return { file, treatment, cost: cost + file.bytes.byteLength };
  };
  const { seen, release } = await memory.admit(look, signal);
  try {
    signal?.throwIfAborted();
    const samples = await decodeSamples(seen.file, seen.treatment, maxPixels);
    signal?.throwIfAborted();
    return await use(toRgb(samples, background, true));
  } finally {
    release();
  }
}

async function decodeSamples(
  file: ImageFile,
  { bytes, ignoreIcc, reduceFirst }: Treatment,
  maxPixels: number,
): Promise<Samples> {
  try {
    const { data, info } = await sharp(reduceFirst ? await reduceTo8Bit(bytes, maxPixels) : bytes, {
      autoOrient: true,
      failOn: 'error',
      limitInputPixels: maxPixels,
      ignoreIcc,
    })
      .toColorspace('srgb')
      .raw()
      .toBuffer({ resolveWithObject: true });
    return { data, width: info.width, height: info.height, channels: info.channels };
  } catch (error) {
    throw corrupt(file, error);
  }
}

/** sharp converts 16-bit RGB with a profile to Display P3 and then labels it sRGB, so the reduction to 8 bits has to come first. */
function reduceTo8Bit(bytes: Uint8Array, maxPixels: number): Promise<Buffer> {
  return sharp(bytes, { autoOrient: true, failOn: 'error', limitInputPixels: maxPixels })
    .toColorspace('srgb')
    .keepIccProfile()
    .png({ compressionLevel: 0 })
    .toBuffer();
}

/**
 * Converts uint8 samples of 1 (gray), 2 (gray, alpha), 3 or 4 channels to RGB: in a new array, or in place if they are `own`ed and no sample
 * would be overwritten before it is read.
 */
function toRgb(
  { data, width, height, channels }: Samples,
  background: readonly [number, number, number],
  own = false,
): RgbImage {
  const pixels = width * height;
  const plain = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (channels === 3) return { data: own ? plain : plain.slice(), width, height };
  const out = own && channels === 4 ? plain.subarray(0, pixels * 3) : new Uint8Array(pixels * 3);
  const color = channels >= 3;
  const hasAlpha = channels === 2 || channels === 4;
  const [red, green, blue] = background;
  for (let i = 0, from = 0, to = 0; i < pixels; i++, from += channels, to += 3) {
    const r = data[from] ?? 0;
    const g = color ? (data[from + 1] ?? 0) : r;
    const b = color ? (data[from + 2] ?? 0) : r;
    const alpha = hasAlpha ? (data[from + channels - 1] ?? 0) : 255;
    out[to] = over(r, red, alpha);
    out[to + 1] = over(g, green, alpha);
    out[to + 2] = over(b, blue, alpha);
  }
  return { data: out, width, height };
}

/** round((color·alpha + under·(255 - alpha)) / 255), exact for bytes. */
function over(color: number, under: number, alpha: number): number {
  const t = color * alpha + under * (255 - alpha) + 128;
  return (t + (t >> 8)) >> 8;
}

function checkRaw(pixels: RawPixels, maxPixels: number): Samples {
  const { data, width, height, channels } = pixels as Record<keyof RawPixels, unknown>;
  if (!types.isUint8Array(data) && !types.isUint8ClampedArray(data)) {
    throw invalid('a Uint8Array or Uint8ClampedArray for data of raw pixels', described(data));
  }
  if (!isSize(width)) throw invalid('a positive integer for width of raw pixels', described(width));
  if (!isSize(height)) throw invalid('a positive integer for height of raw pixels', described(height));
  if (channels !== 1 && channels !== 3 && channels !== 4) {
    throw invalid('1 (gray), 3 (RGB) or 4 (RGBA) for channels of raw pixels', described(channels));
  }
  if (data.length !== width * height * channels) {
    const expected = `${width}·${height}·${channels} = ${width * height * channels} bytes for data of raw pixels`;
    throw invalid(expected, `${data.length}; check width, height and channels`);
  }
  checkSize(width, height, maxPixels, 'raw pixels');
  return { data, width, height, channels };
}

/** The option checks that all readers of images share. */
export const IMAGE_CHECKS = {
  maxPixels: COUNT,
  allowUrls: {
    expected: 'true, false or a function of a URL',
    accepts: (value: unknown) => typeof value === 'boolean' || typeof value === 'function',
  },
};

const COLOR: Check = {
  expected: 'three integers 0..255',
  accepts: (value) => Array.isArray(value) && value.length === 3 && value.every((byte) => BYTE.accepts(byte)),
};
const BYTE = integer(0, 255);
const CHECKS = { ...IMAGE_CHECKS, background: COLOR, signal: SIGNAL };

function readOptions(options: DecodeOptions) {
  const given = checkOptions<DecodeOptions>('decodeImage', options, CHECKS);
  const { background = [255, 255, 255], maxPixels = DEFAULT_MAX_PIXELS, allowUrls = false, signal } = given;
  const allow = typeof allowUrls === 'function' ? guardedCallback('allowUrls', allowUrls) : allowUrls;
  return { background, maxPixels, allowUrls: allow, signal };
}

function isSize(value: unknown): value is number {
  return COUNT.accepts(value);
}
