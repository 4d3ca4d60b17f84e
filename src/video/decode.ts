// The frames of a film at given presentation times, decoded by ffmpeg one after another: upright, with square pixels, as raw pixels through a
// pipe. Frames in between are decoded but not converted or passed on; long gaps are skipped by starting at a later key frame.

import { SparseVilaError } from '../errors';
import type { RawPixels } from '../image/input';
import { type FilmFacts, inputOptions, unreadable } from './probe';
import type { FilmSource } from './source';
import { runTool, type ToolOptions, type Tools } from './tools';

/** A run of ffmpeg is started anew where it would otherwise decode so many pixels for nothing: about what a start costs, 0.3 s on two cores. */
const LEAST_SKIPPED = 1e8;

/** Most frames that one run is asked for: a program's argument has at most 128 KiB. */
const MOST_WANTED = 2000;

export interface Decoding extends Omit<ToolOptions, 'name' | 'input'> {
  readonly tools: Tools;
  readonly source: FilmSource;
  readonly facts: FilmFacts;
  readonly maxPixels: number;
}

/**
 * Yields the frames at `wanted`, ascending times of `facts.times`, as they are decoded; no more than one is in memory beyond what the caller
 * keeps.
 * @throws SparseVilaError ERR_VIDEO_CORRUPT if a frame cannot be decoded, ERR_VIDEO_TOO_LARGE, ERR_VIDEO_TOOL, ERR_VIDEO_TIMEOUT; `signal.reason`
 */
export async function* decodeFrames(decoding: Decoding, wanted: readonly number[]): AsyncGenerator<RawPixels> {
  const { source, facts } = decoding;
  const keys = 'path' in source.from ? facts.keys : [];
  const groups = groupsOf(wanted, { ...facts, keys });
  for (const { from, wanted: own } of groups) {
    let done = 0;
    for await (const frame of decodeGroup(decoding, own, from)) {
      done++;
      yield frame;
    }
    // A file whose index is inexact: what a seek missed is found from the start.
    if (done < own.length && from !== undefined)
      for await (const frame of decodeGroup(decoding, own.slice(done), undefined)) {
        done++;
        yield frame;
      }
    if (done < own.length)
      throw new SparseVilaError(
        'ERR_VIDEO_CORRUPT',
        `Expected ${own.length} frames of ${source.name} but only ${done} could be decoded; fetch or export it again.`,
      );
  }
}

interface Group {
  /** The time of the key frame to start at; undefined: the start of the file. */
  readonly from: number | undefined;
  readonly wanted: readonly number[];
}

/** Times that one run of ffmpeg decodes, each run from the last key frame before its first time. */
export function groupsOf(
  wanted: readonly number[],
  { times, keys, width, height }: Pick<FilmFacts, 'times' | 'keys' | 'width' | 'height'>,
): Group[] {
  const least = LEAST_SKIPPED / (width * height);
  const groups: { from: number | undefined; wanted: number[] }[] = [];
  let [position, key, at] = [0, 0, 0];
  for (const time of wanted) {
    while ((keys[key + 1] ?? Number.POSITIVE_INFINITY) <= time) key++;
    const start = keys[key];
    while ((times[at] ?? Number.POSITIVE_INFINITY) < (start ?? 0)) at++;
    const last = groups.at(-1);
    const isGap = start !== undefined && start <= time && at - position > least;
    const isFull = last?.wanted.length === MOST_WANTED;
    if (last === undefined || isGap || isFull)
      groups.push({
        from: isGap || (isFull && start !== undefined && start <= time) ? start : undefined,
        wanted: [time],
      });
    else last.wanted.push(time);
    position = Math.max(at, indexFrom(times, time, at));
  }
  return groups;
}

/** The index of `time` in ascending times, at or after `from`. */
function indexFrom(times: readonly number[], time: number, from: number): number {
  let [low, high] = [from, times.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((times[middle] as number) < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

async function* decodeGroup(
  decoding: Decoding,
  wanted: readonly number[],
  from: number | undefined,
): AsyncGenerator<RawPixels> {
  const { tools, source, facts, maxPixels, ...options } = decoding;
  const { from: place, name } = source;
  // Key frames are found by the time at which they are decoded, which may lie before the one at which they are shown.
  const seek = from === undefined ? [] : ['-noaccurate_seek', '-seek_timestamp', '1', '-ss', seconds(from, facts.unit)];
  const args = [
    ...['-nostdin', '-hide_banner', '-nostats', '-progress', 'pipe:3', '-copyts', ...seek],
    ...inputOptions(source, maxPixels),
    ...['-map', '0:V:0', '-vf', `select='${chosen(wanted)}',${SQUARE}`],
    ...[...(tools.version >= 501 ? ['-fps_mode'] : ['-vsync']), 'passthrough', '-frames:v', String(wanted.length)],
    ...['-f', 'image2pipe', '-c:v', 'pam', 'pipe:1'],
  ];
  const input = 'path' in place ? undefined : place.pieces;
  const run = runTool(tools.ffmpeg, args, { ...options, name, input }, (words) => unreadable(source, words));
  yield* frames(run.pieces, name, maxPixels);
}

/** Square pixels: one side grows, as players show it; then 8-bit RGB, with alpha where there is some. */
const SQUARE =
  "scale=w='if(gt(sar,1),round(iw*sar),iw)':h='if(gt(sar,1),ih,round(ih/sar))':flags=bicubic+accurate_rnd+full_chroma_int," +
  'setsar=1,format=rgb24|rgba';

/** A time in seconds, rounded down to a microsecond. */
const seconds = (time: number, { numerator, denominator }: FilmFacts['unit']): string =>
  (Math.floor((time * numerator * 1e6) / denominator) / 1e6).toFixed(6);

/** An expression of ffmpeg that is 1 for the frames at these times: a search tree, since a film may have many. */
function chosen(times: readonly number[]): string {
  if (times.length <= 2) return times.map((time) => `eq(pts,${time})`).join('+');
  const middle = times.length >> 1;
  return `if(lt(pts,${times[middle]}),${chosen(times.slice(0, middle))},${chosen(times.slice(middle))})`;
}

const MOST_HEADER = 200;

/** The pictures of a stream of PAM files. Source: netpbm's `pam(5)`. */
async function* frames(pieces: AsyncIterable<Uint8Array>, name: string, maxPixels: number): AsyncGenerator<RawPixels> {
  let header = '';
  let frame: RawPixels | undefined;
  let filled = 0;
  for await (const piece of pieces) {
    for (let at = 0; at < piece.byteLength; ) {
      if (frame === undefined) {
        header += String.fromCharCode(piece[at++] as number);
        if (header.endsWith('ENDHDR\n')) {
          frame = blank(header, name, maxPixels);
          [header, filled] = ['', 0];
        } else if (header.length > MOST_HEADER) throw unexpected(name);
        continue;
      }
      const part = piece.subarray(at, at + frame.data.byteLength - filled);
      frame.data.set(part, filled);
      filled += part.byteLength;
      at += part.byteLength;
      if (filled < frame.data.byteLength) continue;
      yield frame;
      frame = undefined;
    }
  }
}

function blank(header: string, name: string, maxPixels: number): RawPixels {
  const of = (key: string): number => Number(new RegExp(`^${key} (\\d+)$`, 'm').exec(header)?.[1]);
  const [width, height, channels] = [of('WIDTH'), of('HEIGHT'), of('DEPTH')];
  if (!(width > 0 && height > 0) || (channels !== 3 && channels !== 4)) throw unexpected(name);
  if (width * height > maxPixels)
    throw new SparseVilaError(
      'ERR_VIDEO_TOO_LARGE',
      `Expected frames of at most ${maxPixels} pixels for ${name} but received ${width}×${height}.`,
    );
  return { data: new Uint8Array(width * height * channels), width, height, channels };
}

function unexpected(name: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_VIDEO_TOOL',
    `Expected pictures from ffmpeg for ${name} but received something else.`,
  );
}
