// LLaVA-1.5 (`llava`): CLIP without its class row, a two-layer MLP on every patch, a Llama-like decoder; one square crop per picture.
// Source: transformers 5.24 `modeling_llava.py`, `modeling_clip.py`, `processing_llava.py`, `image_processing_pil_clip.py`.

import type { Draw } from '../../image/canvas';
import { cellsOfRegion } from '../../image/cells';
import { resampleOf } from '../../image/preprocess';
import type { ResampleFilter } from '../../image/resample';
import type { ConfigReader } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { MARKER, type MediumLayout, type MediumSize } from '../media';
import { CLIP_NAMES, DECODER_NAMES } from '../names';
import { squarePatches } from '../patches';
import type { Plan } from '../plan';
import { parseNormalization } from '../preprocessor';
import { selectRows } from '../row_maps';
import { clipTower, hiddenStateDepth } from '../tower_config';

/** What LlavaConfig puts in place of a missing vision_config, or of its missing fields: CLIP ViT-L/14 at 336 pixels. */
const CLIP_L_336 = {
  ...{ hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 24, num_attention_heads: 16 },
  ...{ image_size: 336, patch_size: 14 },
};

export const llava: Adapter = { types: ['llava'], plan };

function plan({ folder, root, part, text, images }: CheckpointFiles): Plan {
  const tower = clipTower(part('vision_config', CLIP_L_336));
  const { decoder, config: textConfig } = text();
  const [e, d] = [tower.hiddenSize, decoder.hiddenSize];
  root.oneOf('vision_feature_select_strategy', ['default'] as const, 'default');
  const activation = root.oneOf('projector_hidden_act', ['gelu'] as const, 'gelu');
  const bias = root.boolean('multimodal_projector_bias', true);
  const picture = squareCrop(images, tower.imageSize);
  const source = { folder, prefix: '' };
  return {
    folder,
    family: 'llava',
    decoder,
    tower: { ...tower, depth: hiddenStateDepth(root, 'vision_feature_layer', -2, tower.layers) },
    projector: [
      { kind: 'linear', name: 'linear_1', rows: d, cols: e, bias, activation },
      { kind: 'linear', name: 'linear_2', rows: d, cols: d, bias, activation: 'none' },
    ],
    sources: { decoder: source, tower: source, projector: source },
    names: [[/^(?:model\.)?multi_modal_projector\./, 'projector.'], ...DECODER_NAMES, ...CLIP_NAMES],
    pixels: parseNormalization(images),
    root,
    text: { folder, config: textConfig },
    marker: { id: root.number(root.has('image_token_id') ? 'image_token_id' : 'image_token_index', 32000) },
    videos: false,
    layout: (size) => layout(size, picture, tower.patchSize),
  };
}

/** Length of the shortest edge after resizing, and side of the crop, pixels. */
interface SquareCrop {
  readonly edge: number;
  readonly side: number;
  readonly filter: ResampleFilter;
}

function squareCrop(images: ConfigReader, imageSize: number): SquareCrop {
  const edge = edgeOf(images, 'size', 'shortest_edge') ?? imageSize;
  const side = edgeOf(images, 'crop_size', 'height') ?? edge;
  if (edgeOf(images, 'crop_size', 'width') !== side) throw images.wrong('crop_size', 'a square');
  if (side !== imageSize) throw images.wrong('crop_size', `the tower's image_size ${imageSize}`);
  if (edge < side) throw images.wrong('size', `a shortest edge of at least the crop's ${side}`);
  for (const step of ['do_resize', 'do_center_crop', 'do_rescale', 'do_normalize'])
    if (!images.boolean(step, true)) throw images.wrong(step, 'true');
  if (images.boolean('do_pad', false)) throw images.wrong('do_pad', 'false');
  return { edge, side, filter: resampleOf(images.number('resample', 3)) };
}

/** A length that is written as a number (old files) or under a key of an object. */
function edgeOf(images: ConfigReader, key: string, part: string): number | undefined {
  if (typeof images.json[key] === 'number') return images.size(key);
  const object = images.object(key);
  return object?.has(part) ? object.size(part) : undefined;
}

function layout(size: MediumSize, { edge, side, filter }: SquareCrop, patch: number): MediumLayout {
  const { width, height } = size;
  const long = Math.trunc((edge * Math.max(width, height)) / Math.min(width, height));
  const to = width < height ? { width: edge, height: long } : { width: long, height: edge };
  const [left, top] = [Math.floor((to.width - side) / 2), Math.floor((to.height - side) / 2)];
  const crop: Draw = { step: 'crop', to: { width: side, height: side }, left, top };
  const [x, y] = [width / to.width, height / to.height];
  const region = { left: left * x, top: top * y, width: side * x, height: side * y };
  const cells = Math.floor(side / patch);
  const tokens = cells * cells;
  return {
    kind: 'image',
    canvases: [{ frame: 0, steps: [{ step: 'resize', to, filter }, crop] }],
    patches: squarePatches(1, cells, patch),
    // Row 0 is the class row.
    merge: selectRows(Array.from({ length: tokens }, (_, token) => token + 1)),
    grids: [{ t: 1, h: cells, w: cells, frames: [0], cells: cellsOfRegion(region, { size: side, patch, block: 1 }) }],
    runs: [{ grid: 0, from: 0, to: tokens }],
    text: MARKER,
  };
}
