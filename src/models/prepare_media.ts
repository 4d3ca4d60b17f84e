// The media of a turn before the tower: decoded, laid out by the plan, and drawn as canvases; a film as its canvases are read.

import { SparseVilaError } from '../errors';
import { type Draw, draw } from '../image/canvas';
import type { Size } from '../image/cells';
import { type DecodeOptions, type ImageInput, type RgbImage, withImage } from '../image/decode';
import { prepareStream } from './frame_stream';
import type {
  FilmCanvases,
  FrameStream,
  MediaInput,
  MediumLayout,
  MediumSize,
  PreparedMedium,
  TurnMedia,
} from './media';
import type { Plan } from './plan';
import { type Frames, framesOf, unequalFrames } from './video_frames';

/**
 * Decodes and lays out the media of a turn one after another, and draws them; of a film whose frames can be read again only the first is decoded.
 * @throws SparseVilaError `ERR_IMAGE_…`, `ERR_VIDEO`
 */
export async function prepareMedia(
  plan: Plan,
  media: readonly MediaInput[],
  options: DecodeOptions,
): Promise<PreparedMedium[]> {
  const prepared: PreparedMedium[] = [];
  const turn = { media: media.length, images: media.filter(({ kind }) => kind === 'image').length };
  for (const medium of media) {
    if (medium.kind === 'video' && !plan.videos) throw noVideos(plan);
    prepared.push(await prepareMedium(plan, medium, turn, options));
  }
  return prepared;
}

async function prepareMedium(
  plan: Plan,
  medium: MediaInput,
  turn: TurnMedia,
  options: DecodeOptions,
): Promise<PreparedMedium> {
  if (medium.kind === 'video' && 'frames' in medium.video && Symbol.asyncIterator in medium.video.frames)
    return prepareStream(plan, medium.video as FrameStream, turn, options);
  const { count, read, lasting, ...timing } = await framesOf(plan, medium, options);
  const lay = ({ width, height }: Size): LaidOut => {
    const size = { ...{ kind: medium.kind, width, height, frames: count }, ...timing };
    return { size, layout: plan.layout(size, turn) };
  };
  if (lasting !== undefined) {
    const known = lay(await firstSize(read(options.signal, false), options));
    const draw: FilmCanvases['draw'] = (signal) => drawAll(read(signal, true), () => known, { ...options, signal });
    return { layout: known.layout, made: { size: known.size, turn }, canvases: [], film: { ...lasting, draw } };
  }
  let known: LaidOut | undefined;
  const once = (first: Size): LaidOut => {
    known ??= lay(first);
    return known;
  };
  const canvases: RgbImage[] = [];
  for await (const canvas of drawAll(read(options.signal, true), once, options)) canvases.push(canvas);
  const { size, layout } = known as unknown as LaidOut;
  return { layout, made: { size, turn }, canvases };
}

interface LaidOut {
  readonly size: MediumSize;
  readonly layout: MediumLayout;
}

/** The size of the first frame; no other is read. */
async function firstSize(frames: ReturnType<Frames['read']>, options: DecodeOptions): Promise<Size> {
  for await (const { frame } of boxed(frames))
    return withImage(frame, options, ({ width, height }) => ({ width, height }));
  throw new SparseVilaError('ERR_VIDEO_EMPTY', 'Expected at least one frame, received none.');
}

/** Frames in boxes, since those of a list are not awaited: they come from the caller, and may be anything. */
async function* boxed(frames: ReturnType<Frames['read']>): AsyncGenerator<{ readonly frame: ImageInput }> {
  if (Symbol.asyncIterator in frames) for await (const frame of frames) yield { frame };
  else for (const frame of frames) yield { frame };
}

/**
 * Draws the canvases of frames, one frame after another.
 * @param laidOut the layout for frames of the size of the first
 */
async function* drawAll(
  frames: ReturnType<Frames['read']>,
  laidOut: (first: Size) => LaidOut,
  options: DecodeOptions,
): AsyncGenerator<RgbImage> {
  let [own, next] = [0, 0];
  for await (const { frame } of boxed(frames)) {
    const drawn = await withImage(frame, options, (image) => {
      const { size, layout } = laidOut(image);
      if (image.width !== size.width || image.height !== size.height) throw unequalFrames(own, image, size);
      // The tiles of a picture share their first steps.
      const shared: Drawn = new Map();
      const canvases: RgbImage[] = [];
      for (; layout.canvases[next]?.frame === own; next++) {
        options.signal?.throwIfAborted();
        canvases.push(drawShared(image, layout.canvases[next]?.steps ?? [], shared, options.maxPixels));
      }
      return canvases;
    });
    yield* drawn;
    own++;
  }
}

/** The result of a step on an image. */
type Drawn = Map<Draw, { readonly of: RgbImage; readonly made: RgbImage }>;

function drawShared(frame: RgbImage, steps: readonly Draw[], drawn: Drawn, maxPixels: number | undefined): RgbImage {
  return steps.reduce((image, step) => {
    const known = drawn.get(step);
    if (known?.of === image) return known.made;
    const made = draw(image, [step], maxPixels);
    drawn.set(step, { of: image, made });
    return made;
  }, frame);
}

function noVideos({ family }: Plan): SparseVilaError {
  return new SparseVilaError(
    'ERR_VIDEO',
    `Expected images only, since models of type ${family} take no videos, received a video.`,
  );
}
