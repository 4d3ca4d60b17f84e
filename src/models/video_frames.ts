// The frames of a medium, one after another, whatever it is given as: a picture, a list or stream of frames, or a film whose frames the family's
// rule chooses.

import { SparseVilaError } from '../errors';
import { DEFAULT_MAX_PIXELS, type DecodeOptions, decodeImage, type ImageInput } from '../image/decode';
import { openFilm } from '../video/film';
import { readStream } from '../video/stream';
import { type FrameSampling, MOST_FRAMES, sampleFrames } from './frame_sampling';
import type { FilmFile, FrameStream, FrameTimes, MediaInput } from './media';
import type { Plan } from './plan';

/** The frames of a medium, and what is known of their times. */
export interface Frames extends FrameTimes {
  readonly count: number;
  readonly frames: Iterable<ImageInput> | AsyncIterable<ImageInput>;
}

/** The rule of a family whose plan has none. */
const EIGHT: FrameSampling = { rule: 'uniform', frames: 8 };

/** @throws SparseVilaError `ERR_VIDEO_…` of a film or a stream, `ERR_IMAGE_…` of its frames; `signal.reason` */
export async function framesOf(plan: Plan, medium: MediaInput, options: DecodeOptions): Promise<Frames> {
  if (medium.kind === 'image') return { count: 1, frames: [medium.image] };
  const { video } = medium;
  if ('file' in video) return filmFrames(plan, video, options);
  if (!(Symbol.asyncIterator in video.frames)) {
    const { frames, ...timing } = video;
    return { count: frames.length, frames, ...timing };
  }
  return collected(video as FrameStream, options);
}

async function filmFrames(
  { sampling = EIGHT }: Plan,
  { file, from, to, fps, maxFrames, onProgress }: FilmFile,
  { maxPixels = DEFAULT_MAX_PIXELS, allowUrls = false, signal }: DecodeOptions,
): Promise<Frames> {
  const film = await openFilm(file, (segment) => sampleFrames(sampling, segment, { fps, maxFrames }), {
    ...{ from, to, maxPixels, allowUrls, signal, onProgress },
  });
  const { times, fps: rate, duration } = film;
  return { count: times.length, frames: film.frames(), times, fps: rate, duration };
}

/** Bytes of the decoded frames of a stream, which are all held until their number is known. */
const MOST_BYTES = 2 ** 30;

/** Reads a stream of frames: the layout needs their number. */
async function collected(
  { frames, fps, maxFrames = MOST_FRAMES }: FrameStream,
  options: DecodeOptions,
): Promise<Frames> {
  const images: ImageInput[] = [];
  let bytes = 0;
  for await (const frame of readStream(frames, options.signal)) {
    const { data, width, height } = await decodeImage(frame, options);
    images.push({ data, width, height, channels: 3 });
    bytes += data.byteLength;
    if (bytes > MOST_BYTES)
      throw new SparseVilaError(
        'ERR_VIDEO_TOO_LARGE',
        `Expected frames of at most ${MOST_BYTES} bytes together, received ${images.length} of ${width}×${height} that have more; scale them down, or give maxFrames.`,
      );
    if (images.length >= maxFrames) break;
  }
  if (images.length === 0)
    throw new SparseVilaError('ERR_VIDEO_EMPTY', 'Expected a stream of at least one frame, received none.');
  return { count: images.length, frames: images, ...(fps !== undefined && { fps }) };
}
