// Videos as a caller gives them: their validation, and copies that neither a getter nor a later change of the caller can affect.

import type { VideoInput } from '../models/media';
import { type Check, invalidOption, OBJECT } from '../options';

export const VIDEO: Check = {
  expected:
    'an object whose frames are a list of images; optional: fps, a number above 0; times, the ascending seconds of all frames; duration, seconds,',
  accepts: (value) => {
    if (!OBJECT.accepts(value)) return false;
    const { frames, fps = 1, times, duration = 0 } = value as VideoInput;
    if (!Array.isArray(frames) || frames.length === 0) return false;
    return isNumber(fps) && fps > 0 && isNumber(duration) && duration >= 0 && areTimes(times, frames.length);
  },
};

const isNumber = (value: unknown): boolean => Number.isFinite(value);

/** Whether values are absent, or one ascending number of seconds for each frame. */
function areTimes(times: unknown, frames: number): boolean {
  if (times === undefined) return true;
  if (!Array.isArray(times) || times.length !== frames) return false;
  return Array.from(times as unknown[]).every(
    (time, i) => isNumber(time) && Number(time) >= 0 && (i === 0 || Number(time) >= Number(times[i - 1])),
  );
}

/** A copy of a video that is valid. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function copyOfVideo(video: VideoInput): VideoInput {
  try {
    const { frames, fps, times, duration } = video;
    const copy = {
      frames: Array.from(frames),
      ...(fps !== undefined && { fps }),
      ...(times !== undefined && { times: Array.from(times) }),
      ...(duration !== undefined && { duration }),
    };
    if (VIDEO.accepts(copy)) return copy;
  } catch {
    // A getter threw, or returned something else than a list this time.
  }
  throw invalidOption('ask', `${VIDEO.expected} for each video`, 'one whose values change');
}
