// Whether a file is a still picture, by its first bytes: one frame, where a film could be given.

import { openRegularHandle } from '../files';
import { isSupported, SIGNATURE_BYTES } from '../image/signature';
import { dataUrlBytes, isDataUrl } from '../image/text';
import { FILM_FILE } from './source';

/**
 * Whether a path, data URL or bytes hold a picture that does not move; of an http(s) URL by its name.
 * @throws SparseVilaError ERR_VIDEO_NOT_FOUND, ERR_VIDEO_UNREADABLE
 */
export async function isStill(file: string | Uint8Array): Promise<boolean> {
  if (typeof file === 'string' && /^https?:/i.test(file)) return /\.(jpe?g|png|tiff?|avif)([?#]|$)/i.test(file);
  const bytes = typeof file === 'string' && isDataUrl(file) ? dataUrlBytes(file) : file;
  const head = typeof bytes === 'string' ? await readHead(bytes) : bytes.subarray(0, SIGNATURE_BYTES);
  const text = Buffer.from(head).toString('latin1');
  // GIF and WebP may move; `acTL` is an animated PNG's.
  const mayMove = /^GIF8|^RIFF....WEBP|acTL/s.test(text);
  return isSupported(head) && !mayMove;
}

async function readHead(path: string): Promise<Uint8Array> {
  const file = await openRegularHandle(path, FILM_FILE);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(SIGNATURE_BYTES), 0, SIGNATURE_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
