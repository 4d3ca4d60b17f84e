// Animated GIF, WebP and PNG: their frames are decoded by sharp, a bounded number at a time. ffmpeg reads no animated WebP, and no GIF or animated PNG
// from a pipe.

import { messageOf, SparseVilaError } from '../errors';
import { readFileBoundedAsync } from '../files';
import type { RawPixels } from '../image/input';
import { sharp } from '../image/sharp';
import { animatedPng, isAnimatedPng } from './apng';
import type { FilmOptions, Timeline } from './film';
import { FILM_FILE, type FilmSource, MOST_BYTES } from './source';

export function isAnimation({ head }: FilmSource): boolean {
  const text = Buffer.from(head).toString('latin1');
  return isAnimatedPng(head) || text.startsWith('GIF8') || (text.startsWith('RIFF') && text.slice(8, 12) === 'WEBP');
}

/** @throws SparseVilaError ERR_VIDEO_CORRUPT, ERR_VIDEO_TOO_LARGE */
export async function animation(source: FilmSource, { maxPixels }: FilmOptions): Promise<Timeline> {
  const { from, head } = source;
  const limits = { ...FILM_FILE, limit: MOST_BYTES, tooLarge: 'ERR_VIDEO_TOO_LARGE' } as const;
  // Read whole, so that libvips keeps nothing under a path.
  const input = 'path' in from ? await readFileBoundedAsync(from.path, limits) : from.bytes;
  if (isAnimatedPng(head)) return pngTimeline(source, input, maxPixels);
  const open = (page: number, pages: number) =>
    sharp(input, { page, pages, failOn: 'error', limitInputPixels: maxPixels });
  const {
    width,
    height,
    pageHeight = height,
    pages = 1,
    delay = [],
  } = await orCorrupt(source, () => sharp(input, { pages: -1, limitInputPixels: false }).metadata());
  requireSize(source, width, pageHeight, maxPixels);
  const most = Math.max(1, Math.floor(maxPixels / (width * pageHeight)));
  return {
    times: timesOf(Array.from({ length: pages }, (_, i) => delay[i] ?? 0)),
    rate: 0,
    async *decode(frames, signal) {
      for (let at = 0; at < frames.length; ) {
        signal?.throwIfAborted();
        const first = frames[at] as number;
        const own = frames.slice(at).filter((frame) => frame < first + most);
        const count = (own.at(-1) as number) - first + 1;
        const { data, info } = await orCorrupt(source, () =>
          open(first, count).toColorspace('srgb').ensureAlpha().raw().toBuffer({ resolveWithObject: true }),
        );
        const size = info.width * pageHeight * 4;
        for (const frame of own) {
          const pixels = data.subarray((frame - first) * size, (frame - first + 1) * size);
          yield { data: pixels, width: info.width, height: pageHeight, channels: 4 } satisfies RawPixels;
        }
        at += own.length;
      }
    },
  };
}

/** As browsers have it: frames of at most 10 ms, or of no duration, are shown for 100 ms. */
const [LEAST_MS, DEFAULT_MS] = [10, 100];

/** The time of each frame in seconds, from the milliseconds for which each is shown. */
function timesOf(delays: readonly number[]): number[] {
  let next = 0;
  return delays.map((ms) => {
    const own = next;
    next += ms <= LEAST_MS ? DEFAULT_MS : ms;
    return own / 1000;
  });
}

function requireSize({ name }: FilmSource, width: number, height: number, maxPixels: number): void {
  if (width * height <= maxPixels) return;
  throw new SparseVilaError(
    'ERR_VIDEO_TOO_LARGE',
    `Expected frames of at most ${maxPixels} pixels for ${name} but received ${width}×${height}.`,
  );
}

function pngTimeline(source: FilmSource, input: Uint8Array, maxPixels: number): Timeline {
  const { width, height, delays, frames } = animatedPng(source.name, input);
  requireSize(source, width, height, maxPixels);
  return {
    times: timesOf(delays),
    rate: 0,
    async *decode(wanted, signal) {
      const drawn = frames();
      const last = wanted.at(-1) ?? -1;
      for (let frame = 0; frame <= last; frame++) {
        signal?.throwIfAborted();
        const { value } = await orCorrupt(source, () => drawn.next());
        if (wanted.includes(frame)) yield { data: Uint8Array.from(value as Uint8Array), width, height, channels: 4 };
      }
    },
  };
}

async function orCorrupt<T>({ name }: FilmSource, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const message = `Expected an animated GIF, WebP or PNG for ${name} but it is damaged (${messageOf(cause)}).`;
    throw new SparseVilaError('ERR_VIDEO_CORRUPT', message, { cause });
  }
}
