// Shared by the two families of InternVL: InternViT with a class row and layer scale, 2 x 2 patches per token through a norm and two linear
// layers, a Qwen2 or Qwen3 decoder. A picture is cut into tiles, the whole picture last; each frame of a video is one tile.
// Source: transformers 5.24 `modeling_internvl.py`, `processing_internvl.py`, `image_processing_pil_got_ocr2.py`.

import type { ResampleFilter } from '../image/resample';
import type { ConfigReader } from '../json';
import type { CheckpointFiles } from './checkpoint_files';
import { activation } from './config';
import type { FrameSampling } from './frame_sampling';
import { MARKER, type MediumLayout, type MediumSize } from './media';
import { type Plan, wholeFolder } from './plan';
import { cellsOf, frameSquares, squares } from './squares';
import { type TileRange, tilesAndWhole } from './tile_choice';
import { PLAIN_VIT, sizes, TOWER_ACTIVATIONS, type TowerShape } from './tower_config';

/** Epsilon of RMSNorms on queries and keys, and torch's default for the projector's LayerNorm. */
const [HEAD_EPS, PROJECTOR_EPS] = [1e-6, 1e-5];

/** What the config files of the two families say differently. */
export interface InternvlSettings extends Pick<Plan, 'decoder' | 'text' | 'marker' | 'pixels' | 'names'> {
  readonly tower: TowerShape;
  readonly depth: number;
  readonly filter: ResampleFilter;
  readonly tiles: TileRange;
  readonly sampling: FrameSampling;
  /** What follows a medium in the prompt, where no template prints it. */
  readonly after: string;
}

/** @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED`, `ERR_CONFIG_INVALID` */
export function internvlPlan({ folder, root }: CheckpointFiles, settings: InternvlSettings): Plan {
  const { decoder, tower: vit, depth, text, marker, pixels, names } = settings;
  const shape = { ...settings, block: blockOf(root, vit) };
  const [width, d] = [vit.hiddenSize * shape.block ** 2, decoder.hiddenSize];
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
    sources: wholeFolder(folder),
    ...{ videos: true, sampling: settings.sampling },
    videoPlaceholder: '<video>',
    layout: (size) => (size.kind === 'video' ? film(size, shape) : tiled(size, shape)),
  };
}

/** The tower of a `vision_config`. @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED`, `ERR_CONFIG_INVALID` */
export function internVit(config: ConfigReader): TowerShape {
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
function blockOf(root: ConfigReader, tower: TowerShape): number {
  const block = Math.trunc(1 / root.float('downsample_ratio', 0.5));
  const cells = cellsOf(tower);
  if (cells % block === 0) return block;
  throw root.wrong('downsample_ratio', `one over a divisor of the ${cells} patches per side`);
}

/** Frames where the processor's file says nothing: as in the model cards. */
export const INTERNVL_SAMPLING = { frames: 8 };

type Shape = InternvlSettings & { readonly block: number };

/** The tiles of the grid whose aspect ratio is closest, row by row; the whole picture follows if there is more than one tile. */
function tiled(picture: MediumSize, shape: Shape): MediumLayout {
  const { canvases, regions } = tilesAndWhole(picture, shape.tower.imageSize, shape.tiles, shape.filter);
  const text = `<img>${MARKER.repeat(canvases.length)}</img>${shape.after}`;
  return { ...squares(regions, shape.tower, shape.block), kind: 'image', canvases, text };
}

/** One tile for each frame, with the frame's number. */
function film(size: MediumSize, { tower, block, filter, after }: Shape): MediumLayout {
  const to = { width: tower.imageSize, height: tower.imageSize };
  const frames = frameSquares(size, [{ step: 'resize', to, filter }], tower, block);
  const texts = frames.canvases.map(({ frame }) => `Frame${frame + 1}: <img>${MARKER}</img>`);
  return { ...frames, kind: 'video', text: texts.join('\n') + after };
}
