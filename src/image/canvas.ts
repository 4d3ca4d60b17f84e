// Canvases: the images that a vision tower sees, drawn from decoded frames by resizing, padding and cropping. uint8 in, uint8 out; knows no model.
// Source: Pillow `Image.resize` (resample.ts), `Image.paste` on a colored canvas, `Image.crop`, which is black outside the picture.

import { SparseVilaError } from '../errors';
import type { Size } from './cells';
import type { RgbImage } from './decode';
import { DEFAULT_MAX_PIXELS, MAX_SIDE } from './limits';
import { type ResampleFilter, resize } from './resample';

export type Rgb = readonly [number, number, number];

/** One drawing step. Lengths are pixels; `left` and `top` place the smaller rectangle on the larger one. */
export type Draw =
  | { readonly step: 'resize'; readonly to: Size; readonly filter: ResampleFilter }
  | { readonly step: 'pad'; readonly to: Size; readonly left: number; readonly top: number; readonly color: Rgb }
  | { readonly step: 'crop'; readonly to: Size; readonly left: number; readonly top: number };

/**
 * Applies `steps` to `frame`; returns `frame` itself if there are none.
 * @throws SparseVilaError `ERR_IMAGE_TOO_LARGE` for a canvas with more pixels than both maxPixels and its default, or with a side above MAX_SIDE
 */
export function draw(frame: RgbImage, steps: readonly Draw[], maxPixels: number = DEFAULT_MAX_PIXELS): RgbImage {
  return steps.reduce((image, step) => drawStep(image, step, maxPixels), frame);
}

function drawStep(image: RgbImage, step: Draw, maxPixels: number): RgbImage {
  const { width, height } = step.to;
  const isMoved = step.step !== 'resize' && (step.left !== 0 || step.top !== 0);
  if (width === image.width && height === image.height && !isMoved) return image;
  checkCanvas(step.to, image, maxPixels);
  if (step.step === 'resize') return resize(image, width, height, step.filter);
  const color = step.step === 'pad' ? step.color : ([0, 0, 0] as const);
  const [left, top] = step.step === 'pad' ? [step.left, step.top] : [-step.left, -step.top];
  return paste(image, step.to, left, top, color);
}

/** `maxPixels` limits pictures that are read. The size of a canvas comes from the model, so it may always have up to the default. */
function checkCanvas({ width, height }: Size, image: Size, maxPixels: number): void {
  const limit = Math.max(maxPixels, DEFAULT_MAX_PIXELS);
  if (width * height <= limit && width <= MAX_SIDE && height <= MAX_SIDE) return;
  throw new SparseVilaError(
    'ERR_IMAGE_TOO_LARGE',
    `Expected an image that this model shows on at most ${limit} pixels, with sides of at most ${MAX_SIDE}, received one of ` +
      `${image.width}×${image.height}, which it brings to ${width}×${height}. Crop the image to sides that differ less${width * height > limit ? ', or raise maxPixels' : ''}.`,
  );
}

/** Pastes `image` at (left, top) on a canvas of `color`; parts outside the canvas are cut off. */
function paste(image: RgbImage, { width, height }: Size, left: number, top: number, color: Rgb): RgbImage {
  const row = new Uint8Array(width * 3);
  for (let x = 0; x < width; x++) row.set(color, x * 3);
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) data.set(row, y * width * 3);
  const from = Math.max(0, -left);
  const columns = Math.min(image.width, width - left) - from;
  if (columns <= 0) return { data, width, height };
  for (let y = Math.max(0, -top); y < Math.min(image.height, height - top); y++) {
    const begin = (y * image.width + from) * 3;
    data.set(image.data.subarray(begin, begin + columns * 3), ((top + y) * width + left + from) * 3);
  }
  return { data, width, height };
}
