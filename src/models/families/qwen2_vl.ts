// Qwen2-VL and Qwen2.5-VL (`qwen2_vl`, `qwen2_5_vl`): pictures and videos at their own resolution, a tower with rotary positions by row and
// column, 2 × 2 patches per token, a Qwen2 decoder with positions in time, row and column. The tower of Qwen2.5 has RMSNorm, gated MLPs, and
// windows in most layers.
// Source: transformers 5.24 `modeling_qwen2_vl.py`, `modeling_qwen2_5_vl.py`, `configuration_qwen2_vl.py`, `configuration_qwen2_5_vl.py`.

import type { ConfigReader } from '../../json';
import type { Adapter } from '../adapter';
import type { CheckpointFiles } from '../checkpoint_files';
import { activation, MOST_FEATURES, MOST_LAYERS } from '../config';
import { samplingSettings } from '../frame_sampling';
import { type MediumSize, rateOf } from '../media';
import { DECODER_NAMES } from '../names';
import { type Plan, wholeFolder } from '../plan';
import { CLIP_PIXELS, type ProcessorSpec, processorSettings } from '../preprocessor';
import type { ProjectorStep } from '../projector';
import {
  isTiedInText,
  QWEN_STEPS,
  QWEN_TOWER_NAMES,
  type QwenShape,
  qwenLayout,
  qwenPixels,
  qwenResize,
  qwenShape,
  qwenTowerTheta,
} from '../qwen_media';
import type { TowerConfig } from '../tower';
import { PLAIN_VIT, TOWER_ACTIVATIONS } from '../tower_config';

/** Defaults of Qwen2VLVisionConfig and Qwen2_5_VLVisionConfig. Published files also have `in_chans` and `spatial_patch_size`, which are not read. */
const VISION = {
  ...{ depth: 32, hidden_size: 3584, num_heads: 16, in_channels: 3, patch_size: 14, spatial_merge_size: 2 },
  ...{ temporal_patch_size: 2 },
};
const DEFAULTS = {
  qwen2_vl: { ...VISION, embed_dim: 1280, mlp_ratio: 4, hidden_act: 'quick_gelu' },
  qwen2_5_vl: {
    ...{ ...VISION, intermediate_size: 3420, hidden_act: 'silu', out_hidden_size: 3584, tokens_per_second: 4 },
    ...{ window_size: 112, fullatt_block_indexes: [7, 15, 23, 31] },
  },
} as const;
type QwenType = keyof typeof DEFAULTS;

/** Defaults of Qwen2VLImageProcessor and Qwen2VLVideoProcessor. */
const CLASSES = { ...QWEN_STEPS, classes: ['Qwen2VL', 'Qwen2_5_VL'] };
const IMAGES: ProcessorSpec = {
  ...CLASSES,
  defaults: { ...CLIP_PIXELS, size: { shortest_edge: 56 * 56, longest_edge: 28 * 28 * 1280 } },
};
const VIDEOS: ProcessorSpec = {
  ...CLASSES,
  defaults: { ...CLIP_PIXELS, size: { shortest_edge: 128 * 28 * 28, longest_edge: 28 * 28 * 768 } },
};

/** qwen-vl-utils, where the processor's file says nothing. */
const SAMPLING = { fps: 2, min: 4, max: 768 };
const ACTIVATIONS = { ...TOWER_ACTIVATIONS, silu: 'silu', swish: 'silu' } as const;
const NORM_EPS = 1e-6;

export const qwen2Vl: Adapter = { types: ['qwen2_vl', 'qwen2_5_vl'], plan };

function plan({ folder, root, part, text, images, videos }: CheckpointFiles): Plan {
  const type = root.oneOf<QwenType>('model_type', ['qwen2_vl', 'qwen2_5_vl']);
  const vision = part('vision_config', DEFAULTS[type]);
  const { decoder, config } = text({ model_type: `${type}_text` });
  const { tower, shape } = type === 'qwen2_vl' ? plainTower(vision) : windowedTower(vision);
  const pictures = processorSettings(images, IMAGES);
  const videoSettings = processorSettings(videos, VIDEOS);
  const resize = { image: qwenResize(pictures, shape), video: qwenResize(videoSettings, shape) };
  const width = tower.hiddenSize * shape.merge ** 2;
  const [outKey, d] = [type === 'qwen2_vl' ? 'hidden_size' : 'out_hidden_size', decoder.hiddenSize];
  if (vision.size(outKey) !== d) throw vision.wrong(outKey, `the decoder's hidden_size ${d}`);
  const tokensPerSecond = type === 'qwen2_vl' ? undefined : vision.float('tokens_per_second');
  return {
    folder,
    family: type,
    decoder: { ...decoder, tieWordEmbeddings: decoder.tieWordEmbeddings || isTiedInText(root) },
    tower,
    projector: merger(tower, width, d),
    sources: wholeFolder(folder),
    names: [[/^(?:model\.)?visual\.merger\./, 'projector.'], ...QWEN_TOWER_NAMES, ...DECODER_NAMES],
    pixels: qwenPixels(pictures, videoSettings),
    root,
    text: { folder, config },
    marker: { id: root.number('image_token_id', 151655) },
    videoPlaceholder: '<|video_pad|>',
    videos: true,
    sampling: {
      ...samplingSettings(videoSettings, SAMPLING),
      ...{ rule: 'qwen2', multiple: shape.frames },
    },
    layout: (size) => ({ ...qwenLayout(size, shape, resize[size.kind]), ...planeStep(size, shape, tokensPerSecond) }),
  };
}

/** Settings that both towers share; e: width. */
function towerOf(vision: ConfigReader, { patch, frames }: QwenShape, e: number) {
  const [layers, heads] = [vision.size('depth', undefined, MOST_LAYERS), vision.size('num_heads')];
  // Rows and columns each rotate a quarter of a head's dimensions, twice.
  if (e % (4 * heads) !== 0) throw vision.wrong('num_heads', `a divisor of a quarter of the tower's width ${e}`);
  return {
    ...PLAIN_VIT,
    ...{ hiddenSize: e, layers, heads, imageSize: undefined, patchSize: patch, patchFrames: frames },
    ...{ patchBias: false, classToken: false, preNorm: false, normEps: NORM_EPS, ropeTheta: qwenTowerTheta(vision) },
    ...{ fusedQkv: true, qkvBias: true, qkNorm: false, layerScale: false, salience: 'columns' as const },
    ...{ depth: layers, activation: activation(vision, ACTIVATIONS, 'silu') },
  };
}

function plainTower(vision: ConfigReader): { tower: TowerConfig; shape: QwenShape } {
  const shape = qwenShape(vision);
  const e = vision.size('embed_dim', undefined, MOST_FEATURES);
  const intermediateSize = Math.trunc(e * vision.float('mlp_ratio'));
  const base = towerOf(vision, shape, e);
  return { tower: { ...base, intermediateSize, norm: 'layer', windowed: [], gated: false }, shape };
}

function windowedTower(vision: ConfigReader): { tower: TowerConfig; shape: QwenShape } {
  const shape = qwenShape(vision);
  const base = towerOf(vision, shape, vision.size('hidden_size', undefined, MOST_FEATURES));
  const full: unknown = vision.json.fullatt_block_indexes;
  if (!Array.isArray(full) || !full.every((layer) => Number.isInteger(layer)))
    throw vision.wrong('fullatt_block_indexes', 'a list of layers');
  const window = Math.floor(vision.size('window_size') / shape.merge / shape.patch);
  if (window < 1) throw vision.wrong('window_size', `at least one token, ${shape.merge * shape.patch} pixels`);
  const windowed = Array.from({ length: base.layers }, (_, i) => i).filter((layer) => !full.includes(layer));
  const intermediateSize = vision.size('intermediate_size');
  return {
    tower: { ...base, intermediateSize, norm: 'rms', windowed, gated: true },
    shape: { ...shape, window },
  };
}

/** A norm of each patch, then two linear layers on the patches of a token. */
function merger({ hiddenSize: e, norm }: TowerConfig, width: number, d: number): readonly ProjectorStep[] {
  return [
    { kind: 'norm', name: 'ln_q', width: e, bias: norm === 'layer', eps: NORM_EPS },
    { kind: 'linear', name: 'mlp.0', rows: width, cols: width, bias: true, activation: 'gelu' },
    { kind: 'linear', name: 'mlp.2', rows: d, cols: width, bias: true, activation: 'none' },
  ];
}

/** Qwen2.5 counts seconds: the distance of positions between planes, whose frames are `frames / fps` seconds apart, rounded to f32 as in torch. */
function planeStep(size: MediumSize, { frames }: QwenShape, perSecond: number | undefined) {
  if (size.kind === 'image' || perSecond === undefined) return {};
  return { planeStep: Math.fround(perSecond * Math.fround(frames / rateOf(size))) };
}
