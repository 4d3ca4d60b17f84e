// InternVL 2.5, 3 and 3.5, with transformers' names (`internvl`) or those of the original code (`internvl_chat`): InternViT with a class row and
// layer scale, 2 x 2 patches per token through a norm and two linear layers, a Qwen2 or Qwen3 decoder. A picture is cut into tiles, the
// whole picture last; each frame of a video is one tile.
// Source: transformers 5.24 `modeling_internvl.py`, `processing_internvl.py`, `image_processing_pil_got_ocr2.py`.

import type { Draw } from '../../image/canvas';
import { cellsOfRegion, type Region, wholePicture } from '../../image/cells';
import type { Normalization } from '../../image/preprocessor_config';
import type { ResampleFilter } from '../../image/resample';
import { type ConfigReader, configReader, type Json } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { activation, parseDecoderConfig } from '../config';
import { type FrameSampling, samplingSettings } from '../frame_sampling';
import { type Canvas, type Grid, MARKER, type MediumLayout, type MediumSize } from '../media';
import { DECODER_NAMES, type NameRule, prefixed } from '../names';
import { squarePatches } from '../patches';
import type { Plan } from '../plan';
import {
  CLIP_PIXELS,
  type ProcessorSpec,
  parseFilter,
  parseNormalization,
  processorSettings,
  requireSamePixels,
  requireSquare,
} from '../preprocessor';
import { blockRows, joinMaps } from '../row_maps';
import { closestTileGrid, gridTiles, MOST_TILES } from '../tile_choice';
import { hiddenStateDepth, PLAIN_VIT, sizes, TOWER_ACTIVATIONS, type TowerShape } from '../tower_config';

const NAMES: readonly NameRule[] = [
  [/^(?:model\.)?multi_modal_projector\./, 'projector.'],
  ...prefixed(/^(?:model\.)?vision_tower\./, [
    [/embeddings\.cls_token$/, 'tower.embeddings.class_embedding'],
    [/embeddings\.position_embeddings$/, 'tower.embeddings.position_embedding.weight'],
    [/embeddings\.patch_embeddings\.projection\./, 'tower.embeddings.patch_embedding.'],
    [/encoder\.layer\.(\d+)\.attention\.projection_layer\./, 'tower.encoder.layers.$1.self_attn.out_proj.'],
    [/encoder\.layer\.(\d+)\.attention\./, 'tower.encoder.layers.$1.self_attn.'],
    [/encoder\.layer\.(\d+)\.layernorm_before\./, 'tower.encoder.layers.$1.layer_norm1.'],
    [/encoder\.layer\.(\d+)\.layernorm_after\./, 'tower.encoder.layers.$1.layer_norm2.'],
    [/encoder\.layer\.(\d+)\.lambda_([12])$/, 'tower.encoder.layers.$1.layer_scale$2.weight'],
    [/encoder\.layer\.(\d+)\.mlp\./, 'tower.encoder.layers.$1.mlp.'],
  ]),
  ...DECODER_NAMES,
];

/** Names of the original code. */
const ORIGINAL_NAMES: readonly NameRule[] = [
  [/^mlp1\.0\./, 'projector.layer_norm.'],
  [/^mlp1\.1\./, 'projector.linear_1.'],
  [/^mlp1\.3\./, 'projector.linear_2.'],
  ...prefixed(/^vision_model\./, [
    [/embeddings\.(class_embedding)$/, 'tower.embeddings.$1'],
    [/embeddings\.position_embedding$/, 'tower.embeddings.position_embedding.weight'],
    [/embeddings\.patch_embedding\./, 'tower.embeddings.patch_embedding.'],
    [/encoder\.layers\.(\d+)\.attn\.proj\./, 'tower.encoder.layers.$1.self_attn.out_proj.'],
    [/encoder\.layers\.(\d+)\.attn\./, 'tower.encoder.layers.$1.self_attn.'],
    [/encoder\.layers\.(\d+)\.norm([12])\./, 'tower.encoder.layers.$1.layer_norm$2.'],
    [/encoder\.layers\.(\d+)\.ls([12])$/, 'tower.encoder.layers.$1.layer_scale$2.weight'],
    [/encoder\.layers\.(\d+)\.mlp\./, 'tower.encoder.layers.$1.mlp.'],
  ]),
  ...DECODER_NAMES,
];
/** Defaults of InternVisionConfig, a tower of 6 billion parameters, where they differ from transformers' class. */
const INTERN_VISION: Json = {
  ...{ hidden_size: 3200, intermediate_size: 12800, num_hidden_layers: 48, num_attention_heads: 25 },
  ...{ image_size: 224, norm_type: 'rms_norm', qkv_bias: false, qk_normalization: true },
};
const IMAGENET: Normalization = {
  ...{ rescaleFactor: 1 / 255, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
};

const SQUARE_384: Json = { size: { height: 384, width: 384 }, resample: 3, ...CLIP_PIXELS };
const STEPS = ['do_resize', 'do_rescale', 'do_normalize'];
const IMAGES: ProcessorSpec = { classes: ['GotOcr2'], defaults: SQUARE_384, steps: STEPS };
/** Frames are already sampled. */
const VIDEOS: ProcessorSpec = {
  ...{ classes: ['InternVL', 'GotOcr2'], defaults: SQUARE_384, steps: STEPS },
  ignored: ['do_sample_frames'],
};
/** Epsilon of RMSNorms on queries and keys, and torch's default for the projector's LayerNorm. */
const [HEAD_EPS, PROJECTOR_EPS] = [1e-6, 1e-5];

export const internvl: Adapter = {
  types: ['internvl', 'internvl_chat'],
  plan: (files) => assemblePlan(files, (files.root.json.model_type === 'internvl' ? native : original)(files)),
};

/** What the two kinds of config files say differently. */
interface Settings extends Pick<Plan, 'decoder' | 'text' | 'marker' | 'pixels' | 'names'> {
  readonly tower: TowerShape;
  readonly depth: number;
  readonly filter: ResampleFilter;
  readonly min: number;
  readonly max: number;
  readonly sampling: FrameSampling;
  /** What follows a medium in the prompt, where no template prints it. */
  readonly after: string;
}

function assemblePlan({ folder, root }: CheckpointFiles, settings: Settings): Plan {
  const { decoder, tower: vit, depth, text, marker, pixels, names } = settings;
  const shape = { ...settings, block: blockOf(root, vit) };
  const [width, d] = [vit.hiddenSize * shape.block ** 2, decoder.hiddenSize];
  const source = { folder, prefix: '' };
  const act = root.oneOf('projector_hidden_act', ['gelu'] as const, 'gelu');
  return {
    ...{ folder, root, text, marker, pixels, names, decoder },
    family: root.string('model_type'),
    tower: { ...vit, depth },
    projector: [
      { kind: 'norm', name: 'layer_norm', width, bias: true, eps: PROJECTOR_EPS },
      { kind: 'linear', name: 'linear_1', rows: d, cols: width, bias: true, activation: act },
      { kind: 'linear', name: 'linear_2', rows: d, cols: d, bias: true, activation: 'none' },
    ],
    sources: { decoder: source, tower: source, projector: source },
    ...{ videos: true, sampling: settings.sampling },
    videoPlaceholder: '<video>',
    layout: (size) => (size.kind === 'video' ? film(size, shape) : tiled(size, shape)),
  };
}

function native(files: CheckpointFiles): Settings {
  const { folder, root, part, text } = files;
  const images = processorSettings(files.images, IMAGES);
  const videos = processorSettings(files.videos, VIDEOS);
  const tower = internVit(withSides(part('vision_config')));
  for (const settings of [images, videos]) requireSquare(settings, 'size', tower.imageSize);
  requireSamePixels(images, videos);
  const { decoder, config } = text({ model_type: 'qwen2' });
  if (root.string('vision_feature_select_strategy', 'default') !== 'default')
    throw root.unsupported('vision_feature_select_strategy', 'default');
  return {
    decoder: { ...decoder, tieWordEmbeddings: root.boolean('tie_word_embeddings', true) },
    ...{ tower, depth: hiddenStateDepth(root, 'vision_feature_layer', -1, tower.layers), after: '' },
    ...{ text: { folder, config }, marker: { id: root.number('image_token_id', 151667) } },
    ...{ pixels: parseNormalization(images), filter: parseFilter(images), names: NAMES },
    ...tilesOf(images, ['min_patches', 'max_patches']),
    sampling: { ...samplingSettings(videos, SAMPLING), rule: 'internvl', shift: shiftOf(videos) },
  };
}

/** Config files of the original code, whose processing of pictures is not in a file. Source: OpenGVLab/InternVL `modeling_internvl_chat.py`, README. */
function original({ folder, root, part }: CheckpointFiles): Settings {
  for (const [key, only] of Object.entries({ dynamic_image_size: true, use_thumbnail: true, pad2square: false }))
    if (root.boolean(key, only) !== only) throw root.unsupported(key, `${only}`);
  for (const [key, only] of Object.entries({ ps_version: 'v2', template: 'internvl2_5' }))
    if (root.string(key) !== only) throw root.unsupported(key, only);
  const vision = part('vision_config', INTERN_VISION);
  const renamed = { attention_bias: vision.json.qkv_bias, use_qk_norm: vision.json.qk_normalization };
  const json = { ...vision.json, ...renamed, model_type: 'internvl_vision' };
  const tower = internVit(configReader(json, root.file, 'vision_config.'));
  if (root.number('force_image_size', tower.imageSize) !== tower.imageSize)
    throw root.unsupported('force_image_size', `the tower's image_size ${tower.imageSize}`);
  const config = part('llm_config');
  return {
    decoder: parseDecoderConfig(config.json, root.file),
    tower: { ...tower, fusedQkv: true },
    ...{ depth: hiddenStateDepth(root, 'select_layer', -1, tower.layers), after: '\n' },
    text: { folder, config, template: { name: root.string('template'), file: root.file } },
    ...{ marker: { text: '<IMG_CONTEXT>' }, names: ORIGINAL_NAMES, pixels: IMAGENET, filter: 'bicubic' },
    ...tilesOf(root, ['min_dynamic_patch', 'max_dynamic_patch']),
    sampling: { ...SAMPLING, rule: 'internvl' },
  };
}

/** `image_size` and `patch_size` as one number each; files have [height, width]. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` */
function withSides(config: ConfigReader): ConfigReader {
  const side = (key: string): unknown => {
    const given: unknown = config.json[key];
    if (!Array.isArray(given)) return given;
    if (given.length !== 2 || given[0] !== given[1]) throw config.unsupported(key, 'a square');
    return given[0];
  };
  const sides = { image_size: side('image_size'), patch_size: side('patch_size') };
  return configReader({ ...config.json, ...sides }, config.file, 'vision_config.');
}

/** @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED`, `ERR_CONFIG_INVALID` */
function internVit(config: ConfigReader): TowerShape {
  if (config.string('model_type', 'internvl_vision') !== 'internvl_vision')
    throw config.unsupported('model_type', 'internvl_vision');
  for (const [key, only] of [
    ['use_absolute_position_embeddings', true],
    ['use_mean_pooling', true],
    ['use_mask_token', false],
  ] as const)
    if (config.boolean(key, only) !== only) throw config.unsupported(key, `${only}`);
  const norm = config.oneOf('norm_type', ['layer_norm', 'rms_norm'] as const, 'layer_norm');
  const [normEps, qkNorm] = [config.float('layer_norm_eps', 1e-6), config.boolean('use_qk_norm', false)];
  if (qkNorm && normEps !== HEAD_EPS) throw config.unsupported('layer_norm_eps', `${HEAD_EPS} with use_qk_norm`);
  return {
    ...PLAIN_VIT,
    ...sizes(config, { hidden: 1024, intermediate: 4096, layers: 24, heads: 16, image: 448, patch: 14 }),
    ...{ patchBias: true, classToken: true, preNorm: false, layerScale: true },
    ...{ norm: norm === 'layer_norm' ? 'layer' : 'rms', normEps, qkNorm },
    qkvBias: config.boolean('attention_bias', false),
    activation: activation(config, TOWER_ACTIVATIONS, 'gelu'),
  };
}

/** Patches per side of the block that becomes a token. */
function blockOf(root: ConfigReader, { imageSize, patchSize }: TowerShape): number {
  const block = Math.trunc(1 / root.float('downsample_ratio', 0.5));
  if (Math.floor(imageSize / patchSize) % block === 0) return block;
  throw root.wrong(
    'downsample_ratio',
    `one over a divisor of the ${Math.floor(imageSize / patchSize)} patches per side`,
  );
}

/** Frames where the processor's file says nothing: as in the model cards. */
const SAMPLING = { frames: 8 };

/** `initial_shift`: true, false, or a number of frames. */
const shiftOf = (videos: ConfigReader): boolean | number =>
  typeof videos.json.initial_shift === 'number' ? videos.float('initial_shift') : videos.boolean('initial_shift', true);

/** The processor always cuts pictures, whatever `crop_to_patches` of its image processor says. */
function tilesOf(config: ConfigReader, [least, most]: readonly [string, string]): { min: number; max: number } {
  const [min, max] = [config.size(least, 1), config.size(most, 12)];
  if (max < min || max > MOST_TILES) throw config.wrong(most, `from ${least} (${min}) to ${MOST_TILES}`);
  return { min, max };
}

type Shape = Settings & { readonly block: number };

/** The tiles of the grid whose aspect ratio is closest, row by row; the whole picture follows if there is more than one tile. */
function tiled(picture: MediumSize, shape: Shape): MediumLayout {
  const { filter, min, max } = shape;
  const side = shape.tower.imageSize;
  const { cols, rows } = closestTileGrid(picture, min, max, side);
  const square = { width: side, height: side };
  const { canvases, regions } = gridTiles(picture, side, { cols, rows }, filter);
  if (canvases.length > 1) {
    canvases.push({ frame: 0, steps: [{ step: 'resize', to: square, filter }] });
    regions.push(wholePicture(picture));
  }
  return {
    ...squares(canvases, regions, shape),
    kind: 'image',
    text: `<img>${MARKER.repeat(canvases.length)}</img>${shape.after}`,
  };
}

/** One tile for each frame, with the frame's number. */
function film(size: MediumSize, shape: Shape): MediumLayout {
  const side = shape.tower.imageSize;
  const resize: Draw = { step: 'resize', to: { width: side, height: side }, filter: shape.filter };
  const frames = Array.from({ length: size.frames }, (_, frame) => frame);
  const canvases = frames.map((frame) => ({ frame, steps: [resize] }));
  const text = frames.map((frame) => `Frame${frame + 1}: <img>${MARKER}</img>`).join('\n') + shape.after;
  const { grids, ...rest } = squares(canvases, [wholePicture(size)], shape);
  const { h, w, cells } = grids[0] as Grid;
  const from = (frame: number): number => frame * h * w;
  return {
    ...{ ...rest, kind: 'video', text },
    grids: [{ t: size.frames, h, w, frames, cells }],
    runs: frames.map((frame) => ({ grid: 0, from: from(frame), to: from(frame + 1) })),
  };
}

/** Square canvases, each with a grid and a run; `regions` are the parts of the picture that they show. */
function squares(
  canvases: readonly Canvas[],
  regions: readonly Region[],
  { tower, block }: Shape,
): Pick<MediumLayout, 'canvases' | 'patches' | 'merge' | 'grids' | 'runs'> {
  const { imageSize: size, patchSize: patch } = tower;
  const cells = Math.floor(size / patch);
  const tokens = cells / block;
  // The first row of each canvas is its class row.
  const one = blockRows(cells, cells, block, (row, col) => 1 + row * cells + col);
  return {
    canvases,
    patches: squarePatches(canvases.length, cells, patch),
    merge: joinMaps(
      canvases.map(() => one),
      canvases.map((_, i) => i * (cells * cells + 1)),
    ),
    grids: regions.map((region): Grid => {
      return { t: 1, h: tokens, w: tokens, frames: [0], cells: cellsOfRegion(region, { size, patch, block }) };
    }),
    runs: regions.map((_, grid) => ({ grid, from: grid * tokens ** 2, to: (grid + 1) * tokens ** 2 })),
  };
}
