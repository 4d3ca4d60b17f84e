// The videos of a command line: one value is a video file, unless it is a still picture; several are frames.

import { received, SparseVilaError } from '../errors';
import { checkImage } from '../image/source';
import type { FilmFile, FrameList } from '../models/media';
import { progressReporter } from '../runtime/progress';
import { checkFilm } from '../video/film';
import { isStill } from '../video/still';
import { type ConversationArguments, packagedPath } from './options';

type VideoArguments = Partial<Pick<ConversationArguments, 'fps' | 'maxFrames' | 'from' | 'to'>> & {
  readonly quiet?: boolean | undefined;
};

/** The values of each `--video`. @throws SparseVilaError `ERR_OPTION_INVALID` for options of videos without one */
export function videoPaths(args: Pick<ConversationArguments, 'video'> & VideoArguments): string[][] {
  const { video = [], fps, maxFrames, from, to } = args;
  const options = { '--fps': fps, '--max-frames': maxFrames, '--from': from, '--to': to };
  const stray = Object.entries(options).find(([, value]) => value !== undefined);
  if (stray !== undefined && video.length === 0)
    throw new SparseVilaError('ERR_OPTION_INVALID', `Expected ${stray[0]} with --video, received it without one.`);
  return video.map((values) => values.map(packagedPath));
}

/**
 * Makes a video of the values of one `--video`, in which bytes stand for stdin, and checks that its files exist.
 * @throws SparseVilaError `ERR_IMAGE_…`, `ERR_VIDEO_…`; `ERR_OPTION_INVALID` for options of video files with frames
 */
export async function videoOf(
  values: readonly (string | Buffer)[],
  { fps, maxFrames, from, to, quiet }: VideoArguments,
): Promise<FrameList | FilmFile> {
  const [file] = values;
  const rate = fps === undefined ? {} : { fps };
  const segment = Object.fromEntries(
    Object.entries({ maxFrames, from, to }).filter(([, value]) => value !== undefined),
  );
  if (values.length > 1 || file === undefined || (await isStill(file))) {
    if (Object.keys(segment).length > 0)
      throw new SparseVilaError(
        'ERR_OPTION_INVALID',
        `Expected --max-frames, --from and --to with a video file, received frames for --video (${received(file)}).`,
      );
    for (const frame of values) await checkImage(frame);
    return { frames: values, ...rate };
  }
  await checkFilm(file);
  return { file, ...rate, ...segment, ...(quiet !== true && process.stderr.isTTY && { onProgress: reporter() }) };
}

/** Milliseconds of decoding before a progress bar is shown. */
const QUIET_MS = 2000;

function reporter(): NonNullable<FilmFile['onProgress']> {
  let begin: number | undefined;
  const report = progressReporter();
  return ({ done, total }) => {
    begin ??= performance.now();
    if (performance.now() - begin > QUIET_MS) report({ step: 'decode video', done, total });
    if (done === total) report.stop();
  };
}
