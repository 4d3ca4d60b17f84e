// Any image a caller hands in, to 8-bit RGB: decoding (sharp, which does nothing else here), orientation, colour space, alpha.
// Knows nothing about models, sizes they want, or resampling.
// Source: Pillow's Image.open(..).convert("RGB") is what the models' own processors see; matched bit for bit on 8-bit JPEG, PNG,
// WebP, GIF and TIFF. Departures: orientation, embedded non-sRGB profiles and alpha are honoured (Pillow ignores all three),
// CMYK goes through a profile (Pillow: r = 255 - min(255, c + k)), 16-bit grey is x >> 8 (Pillow clips), AVIF chroma differs.

import { types } from 'node:util';
import sharp from 'sharp';
import { onAbort } from '../abort';
import { SparseVilaError } from '../errors';
import { isSrgbProfile } from './icc';
import { type EncodedImage, readImage } from './source';

/** Pixels already decoded: uint8, row-major HWC; channels 1 = grey, 3 = RGB, 4 = RGBA (alpha not premultiplied). */
export type RawPixels = { data: Uint8Array | Uint8ClampedArray; width: number; height: number; channels: 1 | 3 | 4 };

/** A path, the bytes of an encoded image, or raw pixels. */
export type ImageInput = string | Buffer | Uint8Array | RawPixels;

/** 8-bit sRGB; data is HWC, width·height·3 bytes. */
export interface RgbImage {
  data: Uint8Array;
  width: number;
  height: number;
}

export interface DecodeOptions {
  /** What alpha is composited over, 0..255 each; default white. */
  background?: readonly [number, number, number];
  /** Refuse larger images, from the header; default DEFAULT_MAX_PIXELS. */
  maxPixels?: number;
  signal?: AbortSignal;
}

/**
 * 64 megapixels: above every full-frame camera (61) and a third of where Pillow refuses (179); 192 MB as RGB, about twice that
 * while decoding. No model sees more than a few megapixels.
 */
export const DEFAULT_MAX_PIXELS = 64e6;

/** Longest side in pixels: what JPEG can hold. Bounds the resampler's tables on strips. */
export const MAX_SIDE = 65_535;

/**
 * Decodes `input` to 8-bit RGB, HWC uint8.
 *
 * EXIF orientation is applied; grey is repeated; CMYK and profiles other than sRGB are converted to sRGB (lcms, perceptual);
 * 16 bit becomes 8 by x >> 8 without any gamma; of an animation or multi-page file the first picture is taken. Alpha is
 * composited in the encoded values, `out = round((c·a + b·(255 - a)) / 255)`, by the integer form
 * `t = c·a + b·(255 - a) + 128, out = (t + (t >> 8)) >> 8` (Pillow's paste with a mask).
 * Damage that libjpeg, libpng etc. call an error is refused, truncation always; what they only warn of decodes, as in Pillow.
 *
 * @throws SparseVilaError ERR_IMAGE_INVALID (type, raw pixels), ERR_IMAGE_NOT_FOUND, ERR_IMAGE_UNREADABLE, ERR_IMAGE_EMPTY, ERR_IMAGE_UNSUPPORTED,
 *   ERR_IMAGE_CORRUPT, ERR_IMAGE_TOO_LARGE, ERR_OPTION_INVALID; `signal.reason` once aborted (a running decode ends in the background)
 */
export async function decodeImage(input: ImageInput, options: DecodeOptions = {}): Promise<RgbImage> {
  const { background, maxPixels, signal } = readOptions(options);
  signal?.throwIfAborted();
  if (typeof input === 'string' || types.isUint8Array(input)) {
    const decoded = decodeEncoded(input, maxPixels, signal);
    return toRgb(await abortable(decoded, signal), background);
  }
  return toRgb(checkRaw(input, maxPixels), background);
}

interface Samples {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
  channels: number;
}

async function decodeEncoded(input: string | Uint8Array, maxPixels: number, signal?: AbortSignal): Promise<Samples> {
  const image = await readImage(input);
  signal?.throwIfAborted();
  try {
    const ignoreIcc = await inspect(image, maxPixels);
    signal?.throwIfAborted();
    const bytes = ignoreIcc === 'reduce first' ? await reduceTo8Bit(image.bytes, maxPixels) : image.bytes;
    const { data, info } = await sharp(bytes, {
      autoOrient: true,
      failOn: 'error',
      limitInputPixels: maxPixels,
      ignoreIcc: ignoreIcc === true,
    })
      .toColourspace('srgb')
      .raw()
      .toBuffer({ resolveWithObject: true });
    return { data, width: info.width, height: info.height, channels: info.channels };
  } catch (error) {
    if (error instanceof SparseVilaError || signal?.aborted) throw error;
    throw corrupt(image, error);
  }
}

/** Checks what the header says; returns how to treat the profile: ignore it, or honour it after reducing 16 bits to 8. */
async function inspect({ bytes, name }: EncodedImage, maxPixels: number): Promise<boolean | 'reduce first'> {
  const header = await sharp(bytes, { failOn: 'error', limitInputPixels: false }).metadata();
  checkSize(header.width, header.height, maxPixels, name);
  if (header.depth !== 'uchar' && header.depth !== 'ushort') {
    throw new SparseVilaError(
      'ERR_IMAGE_UNSUPPORTED',
      `Expected 8 or 16 bit unsigned samples for ${name} but received ${header.depth}; convert it to 8 bit.`,
    );
  }
  if (header.icc === undefined) return false;
  if (isSrgbProfile(header.icc)) return true;
  // sharp takes 16-bit RGB with a profile to Display P3 and then calls that sRGB, so the reduction has to come first.
  return header.space === 'rgb16' ? 'reduce first' : false;
}

function reduceTo8Bit(bytes: Uint8Array, maxPixels: number): Promise<Buffer> {
  return sharp(bytes, { autoOrient: true, failOn: 'error', limitInputPixels: maxPixels })
    .toColourspace('srgb')
    .keepIccProfile()
    .png({ compressionLevel: 0 })
    .toBuffer();
}

function corrupt({ name }: EncodedImage, cause: unknown): SparseVilaError {
  const text = cause instanceof Error || types.isNativeError(cause) ? cause.message : String(cause);
  const reasons = text.replace(/^Input (buffer|file) (has corrupt header: *|contains )/, '').split('\n');
  const reason = [...new Set(reasons.map((line) => line.trim()))].filter((line) => line !== '').slice(0, 3);
  const said = reason.length > 0 ? reason.join('; ') : 'the header cannot be read';
  return new SparseVilaError(
    'ERR_IMAGE_CORRUPT',
    `Expected a whole image for ${name} but it is corrupt or truncated (${said}); fetch or export it again.`,
    { cause },
  );
}

/** uint8 samples of 1 (grey), 2 (grey, alpha), 3 or 4 channels to RGB in an array of its own. */
function toRgb({ data, width, height, channels }: Samples, background: readonly [number, number, number]): RgbImage {
  const pixels = width * height;
  if (channels === 3) return { data: new Uint8Array(data), width, height };
  const out = new Uint8Array(pixels * 3);
  const colour = channels >= 3;
  const hasAlpha = channels === 2 || channels === 4;
  const [red, green, blue] = background;
  for (let i = 0, from = 0, to = 0; i < pixels; i++, from += channels, to += 3) {
    const r = data[from] ?? 0;
    const g = colour ? (data[from + 1] ?? 0) : r;
    const b = colour ? (data[from + 2] ?? 0) : r;
    const alpha = hasAlpha ? (data[from + channels - 1] ?? 0) : 255;
    out[to] = over(r, red, alpha);
    out[to + 1] = over(g, green, alpha);
    out[to + 2] = over(b, blue, alpha);
  }
  return { data: out, width, height };
}

/** round((colour·alpha + under·(255 - alpha)) / 255), exact for bytes. */
function over(colour: number, under: number, alpha: number): number {
  const t = colour * alpha + under * (255 - alpha) + 128;
  return (t + (t >> 8)) >> 8;
}

function checkRaw(input: unknown, maxPixels: number): Samples {
  if (typeof input !== 'object' || input === null || !('data' in input)) {
    const hint = types.isAnyArrayBuffer(input) ? ' (wrap it: new Uint8Array(buffer))' : '';
    throw invalid(
      `a path, a Buffer, a Uint8Array or {data, width, height, channels} for image`,
      `${describe(input)}${hint}`,
    );
  }
  const { data, width, height, channels } = input as Record<keyof RawPixels, unknown>;
  if (!types.isUint8Array(data) && !types.isUint8ClampedArray(data)) {
    throw invalid('a Uint8Array or Uint8ClampedArray for data of raw pixels', describe(data));
  }
  if (!isSize(width)) throw invalid('a positive integer for width of raw pixels', describe(width));
  if (!isSize(height)) throw invalid('a positive integer for height of raw pixels', describe(height));
  if (channels !== 1 && channels !== 3 && channels !== 4) {
    throw invalid('1 (grey), 3 (RGB) or 4 (RGBA) for channels of raw pixels', describe(channels));
  }
  if (data.length !== width * height * channels) {
    const expected = `${width}·${height}·${channels} = ${width * height * channels} bytes for data of raw pixels`;
    throw invalid(expected, `${data.length}; check width, height and channels`);
  }
  checkSize(width, height, maxPixels, 'raw pixels');
  return { data, width, height, channels };
}

/**
 * Refuses more than `maxPixels` pixels or a side above MAX_SIDE; `name` is what the error calls the image.
 * @throws SparseVilaError ERR_IMAGE_TOO_LARGE
 */
export function checkSize(width: number, height: number, maxPixels: number, name: string): void {
  if (width * height <= maxPixels && width <= MAX_SIDE && height <= MAX_SIDE) return;
  const limit = width * height > maxPixels ? `at most ${maxPixels} pixels` : `sides of at most ${MAX_SIDE} pixels`;
  throw new SparseVilaError(
    'ERR_IMAGE_TOO_LARGE',
    `Expected ${limit} for ${name} but received ${width}×${height} = ${width * height}; scale it down first.`,
  );
}

function readOptions(options: DecodeOptions) {
  const { background = [255, 255, 255], maxPixels = DEFAULT_MAX_PIXELS, signal, ...unknown } = options;
  const [stray] = Object.keys(unknown);
  if (stray !== undefined) throw option('only background, maxPixels and signal for decodeImage', `"${stray}"`);
  const isByte = (v: unknown) => Number.isInteger(v) && (v as number) >= 0 && (v as number) <= 255;
  if (!Array.isArray(background) || background.length !== 3 || !background.every(isByte)) {
    throw option('three integers 0..255 for background', JSON.stringify(background) ?? 'undefined');
  }
  if (!isSize(maxPixels)) throw option('a positive integer for maxPixels', describe(maxPixels));
  return { background: background as readonly [number, number, number], maxPixels, signal };
}

/** Rejects with the signal's reason as soon as it aborts, whatever `work` is still doing. */
async function abortable<T>(work: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (signal === undefined) return work;
  let forget = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    forget = onAbort(signal, () => reject(signal.reason));
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    forget();
  }
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

function option(expected: string, received: string): SparseVilaError {
  return new SparseVilaError('ERR_OPTION_INVALID', `Expected ${expected} but received ${received}.`);
}

function invalid(expected: string, received: string): SparseVilaError {
  return new SparseVilaError('ERR_IMAGE_INVALID', `Expected ${expected} but received ${received}.`);
}

/** A value for an error: itself where short, and its type. */
function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'object') return `an object of type ${value.constructor?.name ?? 'Object'}`;
  if (typeof value === 'function') return 'a function';
  return `${JSON.stringify(value) ?? String(value)} of type ${typeof value}`;
}
