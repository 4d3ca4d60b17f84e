// LLaVA-1.5 (`llava`): CLIP without its class row, a two-layer MLP on every patch, a Llama decoder; one square crop per picture.
// Source: transformers 5.24 `modeling_llava.py`, `modeling_clip.py`, `processing_llava.py`, `image_processing_pil_clip.py`.

import type { Draw } from '../../image/canvas';
import { cellsOfRegion, type Size } from '../../image/cells';
import type { ResampleFilter } from '../../image/resample';
import { type ConfigReader, configReader, type Json } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { MARKER, type MediumLayout, type MediumSize } from '../media';
import { CLIP_NAMES, DECODER_NAMES } from '../names';
import { squarePatches } from '../patches';
import type { Plan } from '../plan';
import { parseFilter, parseNormalization } from '../preprocessor';
import { selectRows } from '../row_maps';
import { clipTower, hiddenStateDepth } from '../tower_config';

/** LlavaConfig's default for an absent vision_config: CLIP ViT-L/14 at 336 pixels. A vision_config that is present takes its class's defaults. */
const CLIP_L_336 = {
  ...{ hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 24, num_attention_heads: 16 },
  ...{ image_size: 336, patch_size: 14 },
};

export const llava: Adapter = { types: ['llava'], plan };

function plan({ folder, root, part, text, images: given }: CheckpointFiles): Plan {
  const images = clipImages(given);
  const tower = clipTower(part('vision_config', root.has('vision_config') ? {} : CLIP_L_336));
  const { decoder, config: textConfig } = text({ model_type: 'llama' });
  const [e, d] = [tower.hiddenSize, decoder.hiddenSize];
  if (root.string('vision_feature_select_strategy', 'default') !== 'default')
    throw root.unsupported('vision_feature_select_strategy', 'default');
  const activation = root.oneOf('projector_hidden_act', ['gelu'] as const, 'gelu');
  const bias = root.boolean('multimodal_projector_bias', true);
  const picture = squareCrop(images, tower.imageSize);
  const source = { folder, prefix: '' };
  return {
    folder,
    family: 'llava',
    decoder,
    tower: { ...tower, depth: featureDepth(root, tower.layers) },
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

/** `vision_feature_layer`: one hidden state, also as a list of one. Several, which would be concatenated, are not supported. */
function featureDepth(root: ConfigReader, layers: number): number {
  const key = 'vision_feature_layer';
  const given = root.json[key];
  if (!Array.isArray(given)) return hiddenStateDepth(root, key, -2, layers);
  if (given.length !== 1) throw root.unsupported(key, 'one layer');
  return hiddenStateDepth(configReader({ [key]: given[0] }, root.file), key, -2, layers);
}

/** Resizing by the shortest edge, or of both sides regardless of the aspect ratio; then the side of the crop. Pixels. */
interface SquareCrop {
  readonly to: Size | { readonly edge: number };
  readonly side: number;
  readonly filter: ResampleFilter;
}

/** Defaults of CLIPImageProcessor and LlavaImageProcessor; a file holds only the differences. */
const CLIP_IMAGES: Json = {
  ...{ size: { shortest_edge: 224 }, crop_size: { height: 224, width: 224 }, resample: 3 },
  ...{ image_mean: [0.48145466, 0.4578275, 0.40821073], image_std: [0.26862954, 0.26130258, 0.27577711] },
};
const STEPS = ['do_resize', 'do_center_crop', 'do_rescale', 'do_normalize'];

/** Settings of a CLIP processor with its defaults. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for another processor or step */
function clipImages(images: ConfigReader): ConfigReader {
  for (const key of ['image_processor_type', 'feature_extractor_type'])
    if (images.has(key) && !/^(CLIP|Llava)(ImageProcessor|FeatureExtractor)(Fast|Pil)?$/.test(images.string(key)))
      throw images.unsupported(key, 'CLIPImageProcessor or LlavaImageProcessor');
  for (const key of Object.keys(images.json)) {
    const isStep = STEPS.includes(key);
    if (!key.startsWith('do_') || key === 'do_convert_rgb') continue;
    if (images.boolean(key, isStep) !== isStep) throw images.unsupported(key, `${isStep}`);
  }
  const given = Object.entries(images.json).filter(([, value]) => value !== null);
  return configReader({ ...CLIP_IMAGES, ...Object.fromEntries(given) }, images.file);
}

function squareCrop(images: ConfigReader, imageSize: number): SquareCrop {
  const to = sizeOf(images, 'size');
  const crop = sizeOf(images, 'crop_size');
  const { height: side, width } = 'edge' in crop ? { height: crop.edge, width: crop.edge } : crop;
  if (width !== side || side !== imageSize)
    throw images.wrong('crop_size', `a square of the tower's image_size ${imageSize}`);
  if (('edge' in to ? to.edge : Math.min(to.height, to.width)) < side)
    throw images.unsupported('size', `at least the crop's ${side}`);
  return { to, side, filter: parseFilter(images) };
}

/** A length as a number (old files), { shortest_edge }, or { height, width }. */
function sizeOf(images: ConfigReader, key: string): SquareCrop['to'] {
  if (typeof images.json[key] === 'number') return { edge: images.size(key) };
  const given = images.object(key);
  const keys = Object.keys(given?.json ?? {}).filter((name) => given?.has(name));
  const isAll = (...names: string[]): boolean =>
    names.length === keys.length && names.every((one) => keys.includes(one));
  if (given !== undefined && isAll('shortest_edge')) return { edge: given.size('shortest_edge') };
  if (given !== undefined && isAll('height', 'width'))
    return { height: given.size('height'), width: given.size('width') };
  throw images.unsupported(key, 'a number, {shortest_edge}, or {height, width}');
}

/** The size after resizing by the shortest edge. Source: transformers `get_resize_output_image_size`. */
function shortestEdge({ width, height }: Size, edge: number): Size {
  const long = Math.trunc((edge * Math.max(width, height)) / Math.min(width, height));
  return width < height ? { width: edge, height: long } : { width: long, height: edge };
}

function layout(size: MediumSize, { to: target, side, filter }: SquareCrop, patch: number): MediumLayout {
  const { width, height } = size;
  const to = 'edge' in target ? shortestEdge(size, target.edge) : target;
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
