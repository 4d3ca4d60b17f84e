// Makes a job fit to be stored as JSON: pictures in memory become data URLs.

import { received, SparseVilaError } from '../errors';
import type { ImageInput } from '../image/decode';
import type { MediaInput } from '../models/media';
import type { Part } from '../session/session';
import type { Job } from './job';

/**
 * A copy of a job for a queue. Paths stay as they are, and are read by the worker.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for pixels, streams and blobs
 */
export function portable({ id, request }: Job): Job {
  const messages = request.messages.map(({ role, content }) => ({
    role,
    content: typeof content === 'string' ? content : content.map(partOf),
  }));
  return { id, request: { ...request, messages } };
}

function partOf(part: Part): Part {
  if (typeof part === 'string') return part;
  if (part.kind === 'image') return { kind: 'image', image: imageOf(part.image) };
  return mapFrames(part);
}

function mapFrames({ video }: Extract<MediaInput, { kind: 'video' }>): Part {
  if ('file' in video) {
    const { onProgress: _, file, ...segment } = video;
    return { kind: 'video', video: { ...segment, file: imageOf(file) } };
  }
  const { frames, ...timing } = video;
  if (!Array.isArray(frames))
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      'Expected a list of frames, or a file, for a video in a queue, received a stream.',
    );
  return { kind: 'video', video: { ...timing, frames: (frames as readonly ImageInput[]).map(imageOf) } };
}

function imageOf(image: ImageInput): string {
  if (typeof image === 'string') return image;
  if (image instanceof URL) return image.href;
  if (ArrayBuffer.isView(image)) {
    const bytes = Buffer.from(image.buffer, image.byteOffset, image.byteLength);
    return `data:application/octet-stream;base64,${bytes.toString('base64')}`;
  }
  const message = `Expected a path, a URL or bytes for a picture in a queue, received ${received(image)}. Encode it first.`;
  throw new SparseVilaError('ERR_OPTION_INVALID', message);
}
