// The media of a turn before the tower: decoded, laid out by the plan, and drawn as canvases.

import { SparseVilaError } from '../errors';
import { type Draw, draw } from '../image/canvas';
import { type DecodeOptions, type ImageInput, type RgbImage, withImage } from '../image/decode';
import type { MediaInput, MediumLayout, MediumSize, PreparedMedium, TurnMedia } from './media';
import type { Plan } from './plan';
import { framesOf } from './video_frames';

/**
 * Decodes, lays out and draws the media of a turn one after another, and a video frame by frame.
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
  const { frames, count, ...timing } = await framesOf(plan, medium, options);
  const canvases: RgbImage[] = [];
  let layout: MediumLayout | undefined;
  let size: MediumSize | undefined;
  let i = 0;
  const each = async (frame: ImageInput): Promise<void> => {
    const own = i++;
    await withImage(frame, options, (image) => {
      const { width, height } = image;
      size ??= { kind: medium.kind, width, height, frames: count, ...timing };
      if (width !== size.width || height !== size.height) throw unequalFrames(own, image, size);
      layout ??= plan.layout(size, turn);
      // The tiles of a picture share their first steps.
      const drawn: Drawn = new Map();
      for (const canvas of layout.canvases) {
        options.signal?.throwIfAborted();
        if (canvas.frame === own) canvases.push(drawShared(image, canvas.steps, drawn, options.maxPixels));
      }
    });
  };
  // Pictures of a list are not awaited: they come from the caller, and may be anything.
  if (Symbol.asyncIterator in frames) for await (const frame of frames) await each(frame);
  else for (const frame of frames) await each(frame);
  return { layout: layout as MediumLayout, made: { size: size as unknown as MediumSize, turn }, canvases };
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

function unequalFrames(i: number, { width, height }: RgbImage, first: MediumSize): SparseVilaError {
  return new SparseVilaError(
    'ERR_VIDEO',
    `Expected frames of one size, ${first.width}x${first.height} as the first, received ${width}x${height} for frame ${i}.`,
  );
}
