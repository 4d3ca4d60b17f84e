// Frames that come one by one, such as those of a camera: drawn as they come, and held as the tower sees them until their number is known, which the
// layout and the prompt need.

import { SparseVilaError } from '../errors';
import { type Draw, draw } from '../image/canvas';
import type { Size } from '../image/cells';
import { type DecodeOptions, decodeImage, type RgbImage } from '../image/decode';
import { readStream } from '../video/stream';
import { MOST_FRAMES } from './frame_sampling';
import type { FrameStream, MediumLayout, PreparedMedium, TurnMedia } from './media';
import type { Plan } from './plan';
import { unequalFrames } from './video_frames';

/** Bytes of the frames that are held. */
const MOST_BYTES = 2 ** 30;

/**
 * Reads a stream to its end, or to `maxFrames`, and lays out its frames.
 * @throws SparseVilaError `ERR_VIDEO_…`, `ERR_IMAGE_…`; `signal.reason`
 */
export async function prepareStream(
  plan: Plan,
  { frames, fps, maxFrames = MOST_FRAMES }: FrameStream,
  turn: TurnMedia,
  options: DecodeOptions,
): Promise<PreparedMedium> {
  const sizeOf = ({ width, height }: Size, count: number) =>
    ({ kind: 'video', width, height, frames: count, ...(fps !== undefined && { fps }) }) as const;
  const held: RgbImage[][] = [];
  let first: Size | undefined;
  let steps: readonly (readonly Draw[])[] = [];
  let bytes = 0;
  for await (const frame of readStream(frames, options.signal)) {
    const image = await decodeImage(frame, options);
    if (first === undefined) {
      first = { width: image.width, height: image.height };
      steps = stepsOfAll((count) => plan.layout(sizeOf(image, count), turn), maxFrames) ?? [[]];
    }
    if (image.width !== first.width || image.height !== first.height) throw unequalFrames(held.length, image, first);
    const canvases = steps.map((own) => draw(image, own, options.maxPixels));
    held.push(canvases);
    bytes += canvases.reduce((sum, { data }) => sum + data.byteLength, 0);
    if (bytes > MOST_BYTES) throw tooLarge(held);
    if (held.length >= maxFrames) break;
  }
  if (first === undefined)
    throw new SparseVilaError('ERR_VIDEO_EMPTY', 'Expected a stream of at least one frame, received none.');
  const size = sizeOf(first, held.length);
  const layout = plan.layout(size, turn);
  const names = steps.map((own) => JSON.stringify(own));
  const canvases = layout.canvases.map(({ frame, steps: own }): RgbImage => {
    const drawn = held[frame]?.[names.indexOf(JSON.stringify(own))];
    const whole = held[frame]?.[names.indexOf('[]')];
    if (drawn !== undefined) return drawn;
    if (whole !== undefined) return draw(whole, own, options.maxPixels);
    throw new SparseVilaError('ERR_INTERNAL', `Expected frame ${frame} to be drawn as those before it.`);
  });
  return { layout, made: { size, turn }, canvases };
}

/** The lists of steps by which every frame is drawn; undefined where they depend on the number of frames, as where all share a number of pixels. */
function stepsOfAll(layoutOf: (count: number) => MediumLayout, maxFrames: number): (readonly Draw[])[] | undefined {
  if (maxFrames > MOST_FRAMES) return undefined;
  // A family may pool frames, and take only multiples of some number.
  const sizes = [1, 2, 4, 8];
  const [few, most] = [sizes, sizes.map((n) => maxFrames - (maxFrames % n))].map((counts) => {
    const layout = firstLayout(layoutOf, counts);
    if (layout === undefined) return undefined;
    const frames = new Map<number, Map<string, readonly Draw[]>>();
    for (const { frame, steps } of layout.canvases) {
      const own = frames.get(frame) ?? new Map();
      frames.set(frame, own.set(JSON.stringify(steps), steps));
    }
    return [...frames.values()];
  });
  const [own] = few ?? [];
  if (own === undefined) return undefined;
  const isSame = (other: ReadonlyMap<string, unknown>): boolean =>
    other.size === own.size && [...own.keys()].every((name) => other.has(name));
  return most?.every(isSame) ? [...own.values()] : undefined;
}

function firstLayout(layoutOf: (count: number) => MediumLayout, counts: readonly number[]): MediumLayout | undefined {
  for (const count of counts.filter((n) => n > 0))
    try {
      return layoutOf(count);
    } catch {
      // Not this number of frames.
    }
  return undefined;
}

function tooLarge(held: readonly (readonly RgbImage[])[]): SparseVilaError {
  const { width = 0, height = 0 } = held[0]?.[0] ?? {};
  return new SparseVilaError(
    'ERR_VIDEO_TOO_LARGE',
    `Expected frames of at most ${MOST_BYTES} bytes together, received ${held.length} of ${width}×${height} that have more; scale them down, or give maxFrames.`,
  );
}
