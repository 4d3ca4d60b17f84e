// Recognizes the format of an encoded image by its first bytes; errors for formats that are not decoded.
// Source: the signatures of the formats' specifications (PNG §5.2, JPEG B.2.4.1, GIF89a §17, RFC 9649, TIFF 6.0 §2, ISO 14496-12 §4.3).

import { SparseVilaError } from '../errors';

export const READABLE = 'a JPEG, PNG, WebP, GIF, TIFF or AVIF image';

/** Enough for the longest signature below and the brands of an AVIF file. */
export const SIGNATURE_BYTES = 64;

const DECODABLE = ['\xff\xd8\xff', '\x89PNG\r\n\x1a\n', 'GIF87a', 'GIF89a', 'II*\0', 'II+\0', 'MM\0*', 'MM\0+'];

/** Formats that are not decoded, with their first bytes, so that errors can name them. */
const FOREIGN: readonly (readonly [signature: string, name: string])[] = [
  ['BM', 'BMP'],
  ['\0\0\x01\0', 'an icon (ICO)'],
  ['\0\0\x02\0', 'a cursor (CUR) or a TGA image'],
  ['%PDF', 'PDF'],
  ['\xff\x0a', 'JPEG XL'],
  ['\0\0\0\x0cJXL ', 'JPEG XL'],
  ['\0\0\0\x0cjP  ', 'JPEG 2000'],
  ['\xff\x4f\xff\x51', 'JPEG 2000'],
  ['8BPS', 'a Photoshop document (PSD)'],
  ['qoif', 'QOI'],
  ['DDS ', 'DDS'],
  ['icns', 'an icon (ICNS)'],
  ['v/1\x01', 'OpenEXR'],
  ['#?RADIANCE', 'Radiance HDR'],
  ['\x1f\x8b', 'gzip data'],
  ['PK\x03\x04', 'a zip archive'],
  ['\x1aE\xdf\xa3', 'a WebM or Matroska video'],
  ['OggS', 'an Ogg file'],
  ['FLV\x01', 'an FLV video'],
];

/** Names of formats that `videos` reads, and the remedy for them. */
const VIDEO = /video|Ogg/;
const AS_VIDEO = 'give it as a video (--video, videos: [{ file }], or a video_url part of a request)';

/**
 * Requires that `bytes` start like a format that can be decoded.
 * @param name the image's name in errors
 * @throws SparseVilaError ERR_IMAGE_UNSUPPORTED
 */
export function requireSupported(bytes: Uint8Array, name: string): void {
  const received = foreignFormat(headOf(bytes));
  if (received === undefined) return;
  throw new SparseVilaError(
    'ERR_IMAGE_UNSUPPORTED',
    `Expected ${READABLE} for ${name} but received ${received}; ${VIDEO.test(received) ? AS_VIDEO : 'convert it to PNG or JPEG'}.`,
  );
}

/** Whether `bytes` start like a format that can be decoded. */
export function isSupported(bytes: Uint8Array): boolean {
  return foreignFormat(headOf(bytes)) === undefined;
}

/** Whether the file is an AVIF image sequence (brand `avis`), which libvips does not open as such. */
export function isAnimatedAvif(bytes: Uint8Array): boolean {
  return headOf(bytes).slice(4, 12) === 'ftypavis';
}

/**
 * An AVIF image sequence as a still image: its major brand is replaced by `avif`, so that libheif reads the primary item of the `meta` box,
 * which is the first frame. Returns a copy; the caller's bytes do not change.
 */
export function firstAvifFrame(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(bytes);
  copy.set(Buffer.from('avif', 'latin1'), 8);
  return copy;
}

function headOf(bytes: Uint8Array): string {
  const length = Math.min(SIGNATURE_BYTES, bytes.byteLength);
  return Buffer.from(bytes.buffer, bytes.byteOffset, length).toString('latin1');
}

/** The format that `head` (latin1) seems to have; undefined for a format that is decoded. */
function foreignFormat(head: string): string | undefined {
  if (DECODABLE.some((signature) => head.startsWith(signature))) return undefined;
  if (head.startsWith('RIFF') && head.slice(8, 12) === 'WEBP') return undefined;
  if (head.startsWith('RIFF') && head.slice(8, 12) === 'AVI ') return 'an AVI video';
  if (head.slice(4, 8) === 'ftyp') {
    const brands = head.slice(8);
    if (/avi[fs]/.test(brands)) return undefined;
    return /hei[cxms]|hev[cxms]|mif1|msf1/.test(brands)
      ? 'HEIC (HEVC is not in the decoder)'
      : 'an MP4 or QuickTime video';
  }
  const known = FOREIGN.find(([signature]) => head.startsWith(signature));
  if (known !== undefined) return known[1];
  if (/^P[1-7fF]\s/.test(head)) return 'a Netpbm image (PBM, PGM, PPM or PAM)';
  if (/^\s*(<\?xml|<svg|<!doctype|<html|<!--)/i.test(head)) return 'SVG or another XML or HTML document';
  const hex = Buffer.from(head.slice(0, 8), 'latin1').toString('hex');
  return `bytes of no format known here (the first are ${hex})`;
}
