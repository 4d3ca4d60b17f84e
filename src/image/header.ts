// Reads the header of an encoded image: whether it can be decoded, how its profile is treated, and how much memory decoding takes. Knows no
// pixels.

import { types } from 'node:util';
import type { Metadata } from 'sharp';
import { SparseVilaError } from '../errors';
import { isProfileOf, isSrgbProfile } from './icc';
import { checkSize } from './limits';
import { sharp } from './sharp';
import { firstAvifFrame, isAnimatedAvif } from './signature';
import type { ImageFile } from './source';

/** How an image has to be decoded. */
export interface Treatment {
  /** The decoder's input: the file, or the first frame of an image sequence. */
  readonly bytes: Uint8Array;
  readonly ignoreIcc: boolean;
  /** Whether 16 bits are reduced to 8 before the profile is applied. */
  readonly reduceFirst: boolean;
}

/**
 * @returns how to decode the image, and the bytes that decoding takes in addition to the file's
 * @throws SparseVilaError ERR_IMAGE_CORRUPT, ERR_IMAGE_UNSUPPORTED, ERR_IMAGE_TOO_LARGE
 */
export async function inspect(file: ImageFile, maxPixels: number): Promise<Treatment & { readonly cost: number }> {
  const isAnimation = isAnimatedAvif(file.bytes);
  const bytes = isAnimation ? firstAvifFrame(file.bytes) : file.bytes;
  const header = await readHeader(file, bytes, isAnimation);
  checkSize(header.width, header.height, maxPixels, file.name);
  if (header.depth !== 'uchar' && header.depth !== 'ushort') {
    throw unsupported(file, `8 or 16 bit unsigned samples`, header.depth);
  }
  if (header.space === 'lab' || header.space === 'labs') throw unsupported(file, 'RGB, gray or CMYK', 'L*a*b*');
  const { icc, space } = header;
  // A profile of another color space than the pixels' does not describe them: Pillow and browsers ignore it.
  const ignoreIcc = icc !== undefined && (isSrgbProfile(icc) || !isProfileOf(icc, spaceOf(header)));
  const reduceFirst = icc !== undefined && !ignoreIcc && space === 'rgb16';
  return { bytes, ignoreIcc, reduceFirst, cost: costOf(header, reduceFirst) + (isAnimation ? bytes.byteLength : 0) };
}

async function readHeader(file: ImageFile, bytes: Uint8Array, isAnimation: boolean): Promise<Metadata> {
  try {
    return await sharp(bytes, { failOn: 'error', limitInputPixels: false }).metadata();
  } catch (error) {
    if (!isAnimation) throw corrupt(file, error);
    throw new SparseVilaError(
      'ERR_IMAGE_UNSUPPORTED',
      `Expected an image whose first frame can be read for ${file.name} but received animated AVIF without one; convert it to PNG or JPEG.`,
      { cause: error },
    );
  }
}

function unsupported({ name }: ImageFile, expected: string, found: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_IMAGE_UNSUPPORTED',
    `Expected ${expected} for ${name} but received ${found}; convert it to 8-bit RGB, as PNG or JPEG.`,
  );
}

/** The color space signature, at byte 16, that a profile must have. */
function spaceOf({ space, channels }: Metadata): 'RGB ' | 'GRAY' | 'CMYK' {
  if (space === 'cmyk') return 'CMYK';
  return channels <= 2 ? 'GRAY' : 'RGB ';
}

/** Bytes per pixel that the decoders of libvips hold besides their output, measured at 64 megapixels. */
const DECODER_BYTES: Readonly<Record<string, number>> = { heif: 14, webp: 5, gif: 5 };

/** Upper bound of the memory that decoding takes: samples as they arrive and as RGB, and the whole image where the decoder holds it. */
function costOf(header: Metadata, reduceFirst: boolean): number {
  const sample = header.depth === 'ushort' ? 2 : 1;
  const stored = header.channels * sample;
  // These formats cannot be decoded line by line.
  const isWhole = header.isProgressive || (header.orientation ?? 1) > 1 || header.format === 'tiff';
  const perPixel =
    (header.channels <= 2 ? header.channels + 3 : header.channels) +
    (isWhole ? Math.max(stored, 4) : 0) +
    (DECODER_BYTES[header.format] ?? 0) +
    (reduceFirst ? 8 : 0);
  return header.width * header.height * perPixel;
}

/** The messages of libvips for features that it was built without; every other message means damage. */
const MISSING = /support is not configured|exceeds channel limit|bad labq/i;

/** The error for a failed decode: damage, or an unsupported kind of image. */
export function corrupt({ name }: ImageFile, cause: unknown): SparseVilaError {
  if (cause instanceof SparseVilaError) return cause;
  const text = cause instanceof Error || types.isNativeError(cause) ? cause.message : String(cause);
  const reasons = text.replace(/^Input (buffer|file) (has corrupt header: *|contains )/, '').split('\n');
  const reason = [...new Set(reasons.map((line) => line.trim()))].filter((line) => line !== '').slice(0, 3);
  const details = reason.length > 0 ? reason.join('; ') : 'the header cannot be read';
  if (MISSING.test(details)) {
    return new SparseVilaError(
      'ERR_IMAGE_UNSUPPORTED',
      `Expected an image that the decoder reads for ${name} but it refuses (${details}); convert it to PNG or JPEG.`,
      { cause },
    );
  }
  return new SparseVilaError(
    'ERR_IMAGE_CORRUPT',
    `Expected a whole image for ${name} but it is corrupt or truncated (${details}); fetch or export it again.`,
    { cause },
  );
}
