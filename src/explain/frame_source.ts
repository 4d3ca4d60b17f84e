// The frames of a medium, read again to be drawn: those of a list by their places, those of a film file by the rule of the model that has seen it.

import { SparseVilaError } from '../errors';
import type { ImageInput } from '../image/decode';
import type { FilmFile } from '../models/media';
import { framesOf } from '../models/video_frames';
import type { ExplainOptions } from './explain';

/** Calls `take` for the wanted frames, one after another, and returns the number of all frames. */
export type FrameSource = (
  wanted: ReadonlySet<number>,
  take: (frame: number, image: ImageInput) => Promise<void>,
) => Promise<number>;

type Video = { readonly frames: readonly ImageInput[] } | FilmFile;

/** Reading throws SparseVilaError `ERR_VIDEO_…` of a film, `ERR_OPTION_MISSING` if its model is not given; `signal.reason`. */
export function frameSource(video: Video = { frames: [] }, options: Omit<ExplainOptions, 'title'>): FrameSource {
  if ('frames' in video) {
    return async (wanted, take) => {
      for (const [i, image] of video.frames.entries()) if (wanted.has(i)) await take(i, image);
      return video.frames.length;
    };
  }
  return async (wanted, take) => {
    const { model, ...reading } = options;
    if (model === undefined)
      throw new SparseVilaError(
        'ERR_OPTION_MISSING',
        'Expected the model in the options of explain, since its rule chooses the frames of a film file, received none.',
      );
    const { count, read } = await framesOf(model.plan, { kind: 'video', video }, reading);
    const last = Math.max(...wanted);
    let frame = 0;
    for await (const image of read(options.signal, false)) {
      if (wanted.has(frame)) await take(frame, image);
      if (frame++ === last) break;
    }
    return count;
  };
}
