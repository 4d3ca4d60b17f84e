// The frames of a film file that a model looks at, as pictures: for programs that show them beside an answer.

import { SparseVilaError } from '../errors';
import { type DecodeOptions, IMAGE_CHECKS, type ImageInput } from '../image/decode';
import type { FilmFile } from '../models/media';
import type { VisionLanguageModel } from '../models/model';
import { framesOf } from '../models/video_frames';
import { checkOptions, SIGNAL } from '../options';
import { copyOfVideo } from './videos';

export interface FilmFrames {
  /** Number of frames, those that are taken more than once included. */
  readonly count: number;
  /** Decodes the frames, one after another, as often as it is called. @throws SparseVilaError `ERR_VIDEO_…`; `signal.reason` */
  read(signal?: AbortSignal): AsyncIterable<ImageInput>;
}

export type FilmFramesOptions = Pick<DecodeOptions, 'maxPixels' | 'allowUrls' | 'signal'>;

/**
 * Finds the frames that the rule of the model's family takes of a film file; decodes none.
 * @throws SparseVilaError `ERR_VIDEO_…`, `ERR_VIDEO` if it is no film file; `ERR_OPTION_INVALID`; `signal.reason`
 */
export async function filmFrames(
  { plan }: VisionLanguageModel,
  film: FilmFile,
  options?: FilmFramesOptions,
): Promise<FilmFrames> {
  const given = checkOptions<FilmFramesOptions>('frames', options, { ...IMAGE_CHECKS, signal: SIGNAL });
  const video = copyOfVideo(film);
  if (!('file' in video)) throw new SparseVilaError('ERR_VIDEO', 'Expected a film file, { file }, received frames.');
  const { count, read } = await framesOf(plan, { kind: 'video', video }, given);
  return {
    count,
    async *read(signal) {
      yield* read(signal, true);
    },
  };
}
