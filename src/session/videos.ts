// Videos as a caller gives them: their validation, and copies that neither a getter nor a later change of the caller can affect.

import { received } from '../errors';
import type { FilmFile, FrameStream, FrameTimes, VideoInput } from '../models/media';
import { type Check, COUNT, type Fault, FUNCTION, finite, guardedCallback, invalidOption, OBJECT } from '../options';

const FORMS =
  '{ frames: a list of images, optional fps, times (ascending seconds of all frames), duration }, { frames: an async iterable of images, optional fps, maxFrames }, ' +
  'or { file, optional from, to, fps, maxFrames, onProgress }';

export const VIDEO: Check = {
  expected: `a video: ${FORMS},`,
  accepts: (value) => OBJECT.accepts(value) && copyOf(value as object) !== undefined,
  fault: (value) => (OBJECT.accepts(value) ? faultOf(value as object) : undefined),
};

/** A copy of a video that is valid. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function copyOfVideo(video: VideoInput): VideoInput {
  try {
    const copy = copyOf(video);
    if (copy !== undefined) return copy;
  } catch {
    // A getter threw, or returned something else than a list this time.
  }
  throw invalidOption('ask', `${VIDEO.expected} for each video`, 'one whose values change');
}

const POSITIVE: Check = {
  expected: 'a number above 0',
  accepts: (value) => Number.isFinite(value) && Number(value) > 0,
};
const SECONDS = finite(0);

const LIST: Readonly<Record<string, Check>> = { fps: POSITIVE, duration: SECONDS };
const STREAM: Readonly<Record<string, Check>> = { fps: POSITIVE, maxFrames: COUNT };
const FILM: Readonly<Record<string, Check>> = {
  ...{ from: SECONDS, to: SECONDS, fps: POSITIVE, maxFrames: COUNT, onProgress: FUNCTION },
};

/** A copy of a video, each value read once; undefined if it is not valid. */
function copyOf(video: object): VideoInput | undefined {
  const { file, frames, times, ...rest } = { ...video } as Readonly<Record<string, unknown>>;
  const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
  if (file !== undefined) return frames === undefined && times === undefined ? filmOf(file, given) : undefined;
  if (Array.isArray(frames)) {
    const list = Array.from(frames as unknown[]);
    const own = times === undefined ? {} : { times: Array.isArray(times) ? Array.from(times as unknown[]) : [] };
    if (list.length === 0 || !areValid(given, LIST) || !areTimes(own.times, list.length)) return undefined;
    return { frames: list, ...own, ...given } as FrameTimes & VideoInput;
  }
  const isStream = typeof frames === 'object' && frames !== null && Symbol.asyncIterator in frames;
  return isStream && times === undefined && areValid(given, STREAM)
    ? ({ frames, ...given } as unknown as FrameStream)
    : undefined;
}

function filmOf(file: unknown, given: Readonly<Record<string, unknown>>): FilmFile | undefined {
  if (!areValid(given, FILM)) return undefined;
  const { from = 0, to = Number.POSITIVE_INFINITY, onProgress } = given as unknown as FilmFile;
  if (to <= from) return undefined;
  const film = { ...given, file } as FilmFile;
  return onProgress === undefined ? film : { ...film, onProgress: guardedCallback('onProgress', onProgress) };
}

/** The option of a video that is not known or has a value that is not allowed; undefined if the form is at fault. */
function faultOf(video: object): Fault | undefined {
  const { file, frames, times: _, ...rest } = { ...video } as Readonly<Record<string, unknown>>;
  if (file === undefined && frames === undefined) return undefined;
  const [checks, form] =
    file === undefined ? [Array.isArray(frames) ? LIST : STREAM, '{ frames }'] : [FILM, '{ file }'];
  const found = Object.entries(rest).find(([key, value]) => value !== undefined && !checks[key]?.accepts(value));
  const check = found && checks[found[0]];
  if (found && check) return [`${check.expected} for ${found[0]} of a video ${form}`, received(found[1])];
  if (found) return [VIDEO.expected, `the option ${received(found[0])}`];
  const { from, to } = rest;
  return Number(to) <= Number(from ?? 0) ? [`a number above from for to of a video ${form}`, received(to)] : undefined;
}

/** Whether every option is known and accepted. */
const areValid = (given: Readonly<Record<string, unknown>>, checks: Readonly<Record<string, Check>>): boolean =>
  Object.entries(given).every(([key, value]) => Object.hasOwn(checks, key) && checks[key]?.accepts(value));

/** Whether values are absent, or one ascending number of seconds for each frame. */
function areTimes(times: readonly unknown[] | undefined, frames: number): boolean {
  if (times === undefined) return true;
  const isTime = (time: unknown, i: number): boolean =>
    SECONDS.accepts(time) && (i === 0 || Number(time) >= Number(times[i - 1]));
  return times.length === frames && times.every(isTime);
}
