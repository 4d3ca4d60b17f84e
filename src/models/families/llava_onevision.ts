// LLaVA-OneVision (`llava_onevision`): SigLIP, LLaVA's projector, a Qwen2 decoder. One picture of a turn in tiles (`anyres`), whose map is
// reduced after the projector if it is large; each of several pictures as one square; videos at half of the rows and columns of each frame.
// Source: transformers 5.24 `modeling_llava_onevision.py`, `processing_llava_onevision.py`, `image_processing_pil_llava_onevision.py`.

import type { Rgb } from '../../image/canvas';
import { evenCells } from '../../image/cells';
import { meanColor } from '../../image/preprocessor_config';
import type { ResampleFilter } from '../../image/resample';
import type { ConfigReader, Json } from '../../json';
import type { Adapter } from '../adapter';
import { anyres, resolutionsOf } from '../anyres';
import { samplingSettings } from '../frame_sampling';
import { llavaPlan } from '../llava_plan';
import { MARKER, type MediumLayout, type MediumSize } from '../media';
import {
  CLIP_PIXELS,
  type ProcessorSpec,
  parseFilter,
  parseNormalization,
  processorSettings,
  requireSamePixels,
  requireSquare,
} from '../preprocessor';
import { bilinearRows } from '../row_maps';
import { cellsOf, frameSquares, squares } from '../squares';
import { centeredSquare } from '../tile_choice';
import { siglipTower, type TowerShape } from '../tower_config';

/** LlavaOnevisionConfig's default for an absent vision_config. */
const SIGLIP_384 = {
  ...{ hidden_size: 1152, intermediate_size: 4304, num_hidden_layers: 26, num_attention_heads: 16 },
  ...{ image_size: 384, patch_size: 14 },
};

const SIDES = [1, 2, 3, 4, 5, 6].map((tiles) => tiles * 384);
/** Default of LlavaOnevisionConfig and its processor. */
const PINPOINTS = SIDES.flatMap((height) => SIDES.map((width) => [height, width]));

const SQUARE_384: Json = { size: { height: 384, width: 384 }, resample: 3, ...CLIP_PIXELS };
const STEPS = ['do_resize', 'do_rescale', 'do_normalize'];
/** do_pad only pads batches, which does not change a picture. */
const IMAGES: ProcessorSpec = { classes: ['LlavaOnevision'], defaults: SQUARE_384, steps: STEPS, ignored: ['do_pad'] };
/** Frames are already sampled, so sampling settings have no effect. */
const VIDEOS: ProcessorSpec = { ...IMAGES, ignored: ['do_pad', 'do_sample_frames'] };

export const llavaOnevision: Adapter = {
  types: ['llava_onevision'],
  plan(files) {
    const { root } = files;
    const images = processorSettings(files.images, IMAGES);
    const videos = processorSettings(files.videos, VIDEOS);
    const tower = siglipTower(files.part('vision_config', root.has('vision_config') ? {} : SIGLIP_384));
    for (const settings of [images, videos]) requireSquare(settings, 'size', tower.imageSize);
    requireSamePixels(images, videos);
    if (images.has('crop_size')) requireSquare(images, 'crop_size', tower.imageSize);
    const resolutions = resolutionsOf(root, images, tower.imageSize, PINPOINTS);
    const shrink = shrinkOf(root, cellsOf(tower));
    const settings = { tower, resolutions, filter: parseFilter(images), shrink };
    const square = { tower, filter: settings.filter, color: meanColor(parseNormalization(images)) };
    const text = { model_type: 'qwen2' };
    return {
      ...llavaPlan(files, { tower, images, text, strategy: 'full', layer: -1, marker: 151646 }),
      newline: 'image_newline',
      videos: true,
      // The number of frames of the model cards, where the processor's file says nothing.
      sampling: { ...samplingSettings(videos, { frames: 32 }), rule: 'uniform' },
      videoPlaceholder: '<video>',
      layout(size, { media, images: pictures = media }) {
        if (size.kind === 'video') return videoLayout(size, square);
        return pictures > 1 ? padded(size, square) : anyres(size, settings);
      },
    };
  },
};

/** `vision_aspect_ratio`, `anyres_max_N`: a map of more than 1.21 N squares of cells × cells tokens is reduced to N. */
function shrinkOf(root: ConfigReader, cells: number): (h: number, w: number) => { h: number; w: number } {
  const key = 'vision_aspect_ratio';
  const most = /^anyres_max_([1-9]\d*)$/.exec(root.has(key) ? root.string(key) : 'anyres_max_9')?.[1];
  if (most === undefined) throw root.unsupported(key, 'anyres_max_N');
  return (h, w) => {
    const ratio = Math.sqrt((h * w) / (Number(most) * cells ** 2));
    return ratio > 1.1 ? { h: floorDivided(h, ratio), w: floorDivided(w, ratio) } : { h, w };
  };
}

/** Python's a // b. */
function floorDivided(a: number, b: number): number {
  const quotient = (a - (a % b)) / b;
  const floor = Math.floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

interface Square {
  readonly tower: TowerShape;
  readonly filter: ResampleFilter;
  readonly color: Rgb;
}

/** One of several pictures: centered on a square of the mean color, and a newline. */
function padded(picture: MediumSize, { tower, filter, color }: Square): MediumLayout {
  const { canvases, regions } = centeredSquare(picture, tower.imageSize, filter, color);
  const { runs, ...rest } = squares(regions, tower);
  return { ...rest, kind: 'image', canvases, runs: runs.map((run) => ({ ...run, newlines: 1 })), text: MARKER };
}

/** Each frame as one square, at half of its rows and columns after the projector; a newline at the end. */
function videoLayout(size: MediumSize, { tower, filter }: Square): MediumLayout {
  const side = tower.imageSize;
  const cells = cellsOf(tower);
  const half = Math.ceil(cells / 2);
  const resize = { step: 'resize', to: { width: side, height: side }, filter } as const;
  const { grids, ...rest } = frameSquares(size, [resize], tower);
  return {
    ...{ ...rest, kind: 'video', text: MARKER },
    pool: bilinearRows({ t: size.frames, h: cells, w: cells }, { h: half, w: half }),
    grids: grids.map((grid) => ({ ...grid, h: half, w: half, cells: evenCells(size, half, half) })),
    runs: [{ grid: 0, from: 0, to: size.frames * half * half, newlines: 1 }],
  };
}
