// Images given as text: data URLs and base64, and the names of files and URLs in messages.
// Source: RFC 2397 (data URLs), RFC 4648 (base64, base64url).

import { SparseVilaError } from '../errors';
import { shownPath } from '../files';
import { isSupported } from './signature';

const DATA_URL = /^data:([^,]*),/i;
/** Maximum length of a data URL before its comma. */
const DATA_HEADER = 1000;
/** Number of base64 characters that hold the signature of an image. */
const BASE64_HEAD = 88;

export function isDataUrl(text: string): boolean {
  return /^data:/i.test(text);
}

/**
 * The bytes of a data URL, base64 or percent-encoded; its media type is ignored.
 * @throws SparseVilaError ERR_IMAGE_INVALID
 */
export function dataUrlBytes(url: string): Uint8Array {
  const header = DATA_URL.exec(url.slice(0, DATA_HEADER));
  if (header === null) throw invalid('a data URL of the form data:image/png;base64,… for image', 'one without a comma');
  const body = url.slice(header[0].length);
  if (!/;\s*base64\s*$/i.test(header[1] ?? '')) return percentDecoded(body);
  const text = body.includes('%') ? Buffer.from(percentDecoded(body)).toString('latin1') : body;
  const bytes = base64Bytes(text);
  if (bytes !== undefined) return bytes;
  throw invalid('base64 in the data URL for image', 'other characters, or a length that base64 never has');
}

/** The bytes of `text` if it is base64 (or base64url) of a decodable image; white space is ignored. */
export function base64Image(text: string): Uint8Array | undefined {
  const head = base64Bytes(
    text
      .slice(0, 4 * BASE64_HEAD)
      .replace(/\s+/g, '')
      .slice(0, BASE64_HEAD),
  );
  if (head === undefined || head.byteLength < 12 || !isSupported(head)) return undefined;
  return base64Bytes(text);
}

/** Strict decoding: undefined for a character outside base64 or wrong padding. Buffer.from would skip unknown characters. */
function base64Bytes(text: string): Uint8Array | undefined {
  const packed = /\s/.test(text) ? text.replace(/\s+/g, '') : text;
  const length = packed.replace(/={1,2}$/, '').length;
  const isPadded = length !== packed.length;
  if (length % 4 === 1 || (isPadded && packed.length % 4 !== 0)) return undefined;
  if (!/^[A-Za-z0-9+/_-]*={0,2}$/.test(packed)) return undefined;
  return Buffer.from(packed, 'base64');
}

function percentDecoded(text: string): Uint8Array {
  const bytes = Buffer.from(text, 'utf8');
  let to = 0;
  for (let from = 0; from < bytes.length; from++, to++) {
    const code = bytes[from] === 0x25 ? Number.parseInt(bytes.toString('latin1', from + 1, from + 3), 16) : Number.NaN;
    const isEscape = bytes[from] === 0x25 && /^[0-9a-f]{2}$/i.test(bytes.toString('latin1', from + 1, from + 3));
    bytes[to] = isEscape ? code : (bytes[from] ?? 0);
    if (isEscape) from += 2;
  }
  return bytes.subarray(0, to);
}

/** The name in errors of an image given as text: a URL without its query and credentials, data without its bytes. */
export function nameOfText(text: string): string {
  if (isDataUrl(text)) return `image data URL of ${text.length} characters`;
  if (/^https?:/i.test(text)) return `image ${shownUrl(text)}`;
  return `image "${shownPath(text)}"`;
}

function shownUrl(text: string): string {
  try {
    const { protocol, host, pathname } = new URL(text);
    return shownPath(`${protocol}//${host}${pathname}`);
  } catch {
    return 'URL';
  }
}

export function invalid(expected: string, received: string): SparseVilaError {
  return new SparseVilaError('ERR_IMAGE_INVALID', `Expected ${expected} but received ${received}.`);
}
