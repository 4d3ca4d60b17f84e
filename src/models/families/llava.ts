// LLaVA-1.5 (`llava`): CLIP without its class row, a two-layer MLP on every patch, a Llama decoder; one square crop per picture.
// Source: transformers 5.24 `modeling_llava.py`, `modeling_clip.py`, `processing_llava.py`, `image_processing_pil_clip.py`.

import type { Draw } from '../../image/canvas';
import type { Size } from '../../image/cells';
import type { ResampleFilter } from '../../image/resample';
import type { ConfigReader } from '../../json';
import type { Adapter } from '../adapter';
import { CLIP_L_336, llavaPlan } from '../llava_plan';
import { MARKER, type MediumLayout, type MediumSize } from '../media';
import {
  CLIP_PIXELS,
  type ProcessorSpec,
  parseFilter,
  parseSize,
  processorSettings,
  requireSquare,
} from '../preprocessor';
import { type SquareTower, squares } from '../squares';
import { clipTower } from '../tower_config';

export const llava: Adapter = {
  types: ['llava'],
  plan(files) {
    const { root, images: given } = files;
    const images = processorSettings(given, CLIP_PROCESSOR);
    const tower = clipTower(files.part('vision_config', root.has('vision_config') ? {} : CLIP_L_336));
    const picture = squareCrop(images, tower.imageSize);
    return {
      ...llavaPlan(files, {
        tower,
        images,
        text: { model_type: 'llama' },
        strategy: 'default',
        layer: -2,
        marker: 32000,
      }),
      videos: false,
      layout: (size) => layout(size, picture, tower),
    };
  },
};

/** Resizing by the shortest edge, or of both sides regardless of the aspect ratio; then the side of the crop. Pixels. */
interface SquareCrop {
  readonly to: Size | { readonly edge: number };
  readonly side: number;
  readonly filter: ResampleFilter;
}

/** Defaults of CLIPImageProcessor and LlavaImageProcessor. */
const CLIP_PROCESSOR: ProcessorSpec = {
  classes: ['CLIP', 'Llava'],
  defaults: { size: { shortest_edge: 224 }, crop_size: { height: 224, width: 224 }, resample: 3, ...CLIP_PIXELS },
  steps: ['do_resize', 'do_center_crop', 'do_rescale', 'do_normalize'],
};

function squareCrop(images: ConfigReader, side: number): SquareCrop {
  const to = parseSize(images, 'size');
  requireSquare(images, 'crop_size', side);
  if (('edge' in to ? to.edge : Math.min(to.height, to.width)) < side)
    throw images.unsupported('size', `at least the crop's ${side}`);
  return { to, side, filter: parseFilter(images) };
}

/** The size after resizing by the shortest edge. Source: transformers `get_resize_output_image_size`. */
function shortestEdge({ width, height }: Size, edge: number): Size {
  const long = Math.trunc((edge * Math.max(width, height)) / Math.min(width, height));
  return width < height ? { width: edge, height: long } : { width: long, height: edge };
}

function layout(size: MediumSize, { to: target, side, filter }: SquareCrop, tower: SquareTower): MediumLayout {
  const { width, height } = size;
  const to = 'edge' in target ? shortestEdge(size, target.edge) : target;
  const [left, top] = [Math.floor((to.width - side) / 2), Math.floor((to.height - side) / 2)];
  const crop: Draw = { step: 'crop', to: { width: side, height: side }, left, top };
  const [x, y] = [width / to.width, height / to.height];
  const region = { left: left * x, top: top * y, width: side * x, height: side * y };
  return {
    ...squares([region], tower),
    kind: 'image',
    canvases: [{ frame: 0, steps: [{ step: 'resize', to, filter }, crop] }],
    text: MARKER,
  };
}
