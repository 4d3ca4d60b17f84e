// A film as a sampled list of frames with their times: chosen by presentation time before anything is decoded, then decoded one after another, as
// often as they are read.

import { createHash } from 'node:crypto';
import { SparseVilaError } from '../errors';
import type { AllowUrls } from '../image/fetch';
import type { RawPixels } from '../image/input';
import { animation, isAnimation } from './animation';
import { decodeFrames } from './decode';
import { type FilmFacts, probe } from './probe';
import { checkUnchanged, type FilmSource, filmSource } from './source';
import { findTools } from './tools';

export interface FilmOptions {
  /** The segment to look at, in seconds from the film's first frame; default all of it. `to` is not part of it. */
  readonly from?: number | undefined;
  readonly to?: number | undefined;
  readonly maxPixels: number;
  readonly allowUrls: AllowUrls;
  readonly signal?: AbortSignal | undefined;
}

export interface FilmReading {
  readonly signal?: AbortSignal | undefined;
  /** Called after each decoded frame. */
  readonly onProgress?: ((progress: { readonly done: number; readonly total: number }) => void) | undefined;
}

/** Which frames of a segment to look at, as ascending indices; `fps` is its rate. */
export type Choose = (segment: { readonly frames: number; readonly fps: number }) => readonly number[];

export interface Film {
  /** The time of each chosen frame, in seconds from the film's first frame. */
  readonly times: readonly number[];
  /** Chosen frames per second of the segment. */
  readonly fps: number;
  /** Seconds of the whole film. */
  readonly duration: number;
  /** Bytes that are held for reading it: of a film that is not a file. */
  readonly bytes: number;
  /** A text that is equal for equal films: of a file its place, size and time, of bytes their hash. */
  content(): string;
  /**
   * The frames, decoded when they are asked for. A film can be read any number of times.
   * @throws SparseVilaError ERR_VIDEO_…, ERR_VIDEO_UNREADABLE if its file has changed; `signal.reason`
   */
  frames(reading?: FilmReading): AsyncGenerator<RawPixels>;
}

/** Frames by their times, in seconds from the first, and a way to decode some of them. */
export interface Timeline {
  readonly times: readonly number[];
  /** The rate that the container has, 0 if unknown. */
  readonly rate: number;
  decode(frames: readonly number[], signal: AbortSignal | undefined): AsyncGenerator<RawPixels>;
}

/**
 * Opens a film, and chooses its frames; decodes none.
 * @throws SparseVilaError ERR_VIDEO_…, ERR_IMAGE_URL, ERR_IMAGE_FETCH; `signal.reason`
 */
export async function openFilm(input: unknown, choose: Choose, options: FilmOptions): Promise<Film> {
  const source = await filmSource(input, options);
  const timeline = isAnimation(source) ? await animation(source, options) : await timelineOf(source, options);
  return sampled(source, timeline, choose, options);
}

/**
 * Checks that a film exists and that there are programs to read it; a URL is not checked, because it may be allowed to be fetched once only.
 * @throws SparseVilaError ERR_VIDEO_…
 */
export async function checkFilm(input: string | Uint8Array): Promise<void> {
  if (typeof input === 'string' && /^https?:/i.test(input)) return void findTools();
  if (!isAnimation(await filmSource(input, { allowUrls: false }))) findTools();
}

async function timelineOf(source: FilmSource, { maxPixels, signal }: FilmOptions): Promise<Timeline> {
  const tools = findTools();
  const facts = await probe(tools, source, maxPixels, { signal });
  const { times, unit, rate } = facts;
  const first = times[0] as number;
  return {
    // One division, so that frame i of a film of 25 per second is at i / 25 exactly.
    times: times.map((time) => scaled(time - first, unit)),
    rate,
    decode: (frames, reading) =>
      decodeFrames(
        { tools, source, facts, maxPixels, signal: reading },
        frames.map((i) => times[i] as number),
      ),
  };
}

const scaled = (units: number, { numerator, denominator }: FilmFacts['unit']): number =>
  (units * numerator) / denominator;

/** The film with the frames that `choose` takes of the segment. */
function sampled(
  source: FilmSource,
  { times, rate, decode }: Timeline,
  choose: Choose,
  { from = 0, to = Number.POSITIVE_INFINITY }: Pick<FilmOptions, 'from' | 'to'>,
): Film {
  const fps = rateOf(times, rate);
  const begin = times.findIndex((time) => time >= from);
  const after = times.findIndex((time) => time >= to);
  const segment = times.slice(begin < 0 ? times.length : begin, after < 0 ? times.length : after);
  if (segment.length === 0) {
    throw new SparseVilaError(
      'ERR_VIDEO_EMPTY',
      `Expected frames from second ${from}${to === Number.POSITIVE_INFINITY ? '' : ` to ${to}`} of ${source.name}, which lasts ` +
        `${(times.length / fps).toFixed(1)} seconds, but there are none.`,
    );
  }
  const chosen = choose({ frames: segment.length, fps });
  const start = segment[0] as number;
  // Where the rate varies, the frames that are shown when those of a film of even rate would be.
  const own = isEven(segment, fps)
    ? chosen
    : nearest(
        segment,
        chosen.map((place) => start + place / fps),
      );
  const places = own.map((place) => begin + place);
  const distinct = [...new Set(places)];
  return {
    times: places.map((place) => times[place] as number),
    fps: (places.length / segment.length) * fps,
    duration: times.length / fps,
    bytes: 'bytes' in source.from ? source.from.bytes.byteLength : 0,
    content: () =>
      'bytes' in source.from
        ? createHash('sha256').update(source.from.bytes).digest('base64')
        : `${source.from.path} ${source.from.stamp}`,
    async *frames({ signal, onProgress } = {}) {
      if ('path' in source.from) await checkUnchanged(source.name, source.from.path, source.from.stamp);
      let done = 0;
      for await (const frame of decode(distinct, signal)) {
        const place = distinct[done++];
        onProgress?.({ done, total: distinct.length });
        // A rule may take a frame more than once.
        for (const one of places) if (one === place) yield frame;
      }
    },
  };
}

/** Frames per second: the container's if the frames keep to it, and otherwise their mean. */
function rateOf(times: readonly number[], rate: number): number {
  if (rate > 0 && isEven(times, rate)) return rate;
  const span = times.at(-1) ?? 0;
  return span > 0 ? (times.length - 1) / span : rate || 1;
}

/** Whether frame i is nearest to i / rate for every i. */
const isEven = (times: readonly number[], rate: number): boolean =>
  times.every((time, i) => Math.abs(time - (times[0] as number) - i / rate) <= 0.5 / rate);

/** The frame that is nearest to each of these times, all ascending. */
function nearest(times: readonly number[], wanted: readonly number[]): number[] {
  let at = 0;
  return wanted.map((time) => {
    const off = (i: number): number => Math.abs((times[i] ?? Number.POSITIVE_INFINITY) - time);
    while (off(at + 1) <= off(at)) at++;
    return at;
  });
}
