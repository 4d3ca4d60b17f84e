// LLaVA-NeXT (`llava_next`, LLaVA-1.6): LLaVA-1.5 with pictures in tiles (`anyres`) and a learned newline row after each row of their map.
// Source: transformers 5.24 `modeling_llava_next.py`, `processing_llava_next.py`, `image_processing_pil_llava_next.py`.

import type { Adapter } from '../adapter';
import { anyres, resolutionsOf } from '../anyres';
import { CLIP_L_336, llavaPlan } from '../llava_plan';
import { CLIP_PIXELS, type ProcessorSpec, parseFilter, processorSettings, requireSquare } from '../preprocessor';
import { clipTower } from '../tower_config';

/** Default of LlavaNextConfig and LlavaNextImageProcessor. */
const PINPOINTS = [
  [336, 672],
  [672, 336],
  [672, 672],
  [1008, 336],
  [336, 1008],
];

/** Defaults of LlavaNextImageProcessor. do_pad only pads batches, which does not change a picture. */
const PROCESSOR: ProcessorSpec = {
  classes: ['LlavaNext'],
  defaults: { size: { shortest_edge: 224 }, crop_size: { height: 224, width: 224 }, resample: 3, ...CLIP_PIXELS },
  steps: ['do_resize', 'do_center_crop', 'do_rescale', 'do_normalize'],
  ignored: ['do_pad'],
};

export const llavaNext: Adapter = {
  types: ['llava_next'],
  plan(files) {
    const { root } = files;
    const images = processorSettings(files.images, PROCESSOR);
    const tower = clipTower(files.part('vision_config', root.has('vision_config') ? {} : CLIP_L_336));
    for (const key of ['size', 'crop_size']) requireSquare(images, key, tower.imageSize);
    const resolutions = resolutionsOf(root, images, tower.imageSize, PINPOINTS);
    const settings = { tower, resolutions, filter: parseFilter(images) };
    const text = { model_type: 'llama' };
    return {
      ...llavaPlan(files, { tower, images, text, strategy: 'default', layer: -2, marker: 32000 }),
      newline: 'image_newline',
      videos: false,
      layout: (size) => anyres(size, settings),
    };
  },
};
