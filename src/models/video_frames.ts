// The frames of a medium, one after another, whatever it is given as: a picture, a list of frames, or a film whose frames the family's
// rule chooses.

import { createHash } from 'node:crypto';
import { SparseVilaError } from '../errors';
import { shownPath } from '../files';
import type { Size } from '../image/cells';
import { DEFAULT_MAX_PIXELS, type DecodeOptions, type ImageInput } from '../image/decode';
import { isDataUrl } from '../image/text';
import { openFilm } from '../video/film';
import { checkUnchanged, stampOf } from '../video/source';
import { type FrameSampling, sampleFrames } from './frame_sampling';
import type { FilmCanvases, FilmFile, FrameList, FrameTimes, MediaInput } from './media';
import type { Plan } from './plan';

/** The frames of a medium, and what is known of their times. */
export interface Frames extends FrameTimes {
  readonly count: number;
  /**
   * Reads the frames in their order: any number of times if they are `lasting`, otherwise once.
   * @param isTold whether the caller is told of the progress
   */
  read(signal: AbortSignal | undefined, isTold: boolean): Iterable<ImageInput> | AsyncIterable<ImageInput>;
  /** Present if the frames can be read again, and not be changed unseen. */
  readonly lasting?: Pick<FilmCanvases, 'content' | 'bytes'>;
}

/** The rule of a family whose plan has none. */
const EIGHT: FrameSampling = { rule: 'uniform', frames: 8 };

/** @throws SparseVilaError `ERR_VIDEO_…` of a film, `ERR_IMAGE_…` of its frames; `signal.reason` */
export async function framesOf(plan: Plan, medium: MediaInput, options: DecodeOptions): Promise<Frames> {
  if (medium.kind === 'image') return { count: 1, read: () => [medium.image] };
  const { video } = medium;
  if ('file' in video) return filmFrames(plan, video, options);
  return listed(video as FrameList);
}

async function filmFrames(
  { sampling = EIGHT }: Plan,
  { file, from, to, fps, maxFrames, onProgress }: FilmFile,
  { maxPixels = DEFAULT_MAX_PIXELS, allowUrls = false, signal }: DecodeOptions,
): Promise<Frames> {
  const film = await openFilm(file, (segment) => sampleFrames(sampling, segment, { fps, maxFrames }), {
    ...{ from, to, maxPixels, allowUrls, signal },
  });
  const { times, fps: rate, duration } = film;
  const read: Frames['read'] = (reading, isTold) =>
    film.frames({ signal: reading, onProgress: isTold ? onProgress : undefined });
  return { count: times.length, read, times, fps: rate, duration, lasting: film };
}

async function listed({ frames, ...timing }: FrameList): Promise<Frames> {
  const count = frames.length;
  const names = frames.filter((frame) => typeof frame === 'string' && !/^https?:/i.test(frame)) as string[];
  // Bytes may be changed by the caller, and URLs be fetched once only.
  if (names.length < count) return { count, read: () => frames, ...timing };
  const stamps = await Promise.all(names.map(pathStamp));
  async function* read(): AsyncGenerator<ImageInput> {
    for (const [i, name] of names.entries()) {
      const stamp = stamps[i];
      if (stamp) await checkUnchanged(shownPath(name), name, stamp);
      yield name;
    }
  }
  const content = (): string =>
    createHash('sha256')
      .update(JSON.stringify([names, stamps]))
      .digest('base64');
  return { count, read, ...timing, lasting: { content, bytes: 0 } };
}

/** The stamp of a frame that is a path; empty for text of another form, which cannot change. */
const pathStamp = (name: string): Promise<string> | string => (isDataUrl(name) ? '' : stampOf(name));

/** @param i the number of a frame that has another size than the first */
export function unequalFrames(i: number, { width, height }: Size, first: Size): SparseVilaError {
  return new SparseVilaError(
    'ERR_VIDEO',
    `Expected frames of one size, ${first.width}x${first.height} as the first, received ${width}x${height} for frame ${i}.`,
  );
}
