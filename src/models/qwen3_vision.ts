// The vision side of Qwen3-VL and Qwen3.5: a tower with learned positions that are resampled and rotary ones, mergers, and videos with the time
// of every frame pair as text.
// Source: transformers 5.24 `modeling_qwen3_vl.py`, `configuration_qwen3_vl.py`, `processing_qwen3_vl.py`, `video_processing_qwen3_vl.py`.

import type { Normalization } from '../image/preprocessor_config';
import { halfEven, smartResizeVideo } from '../image/smart_resize';
import type { ConfigReader } from '../json';
import type { CheckpointFiles } from './checkpoint_files';
import { activation, MOST_FEATURES, MOST_LAYERS } from './config';
import { type FrameSampling, samplingSettings } from './frame_sampling';
import { MARKER, type MediumLayout, type MediumSize, timesOf } from './media';
import { CLIP_PIXELS, type ProcessorSpec, processorSettings } from './preprocessor';
import type { ProjectorStep } from './projector';
import {
  QWEN_STEPS,
  type QwenResize,
  type QwenShape,
  qwenLayout,
  qwenPixels,
  qwenResize,
  qwenShape,
  qwenTowerTheta,
} from './qwen_media';
import type { TowerConfig } from './tower';
import { PLAIN_VIT, TOWER_ACTIVATIONS } from './tower_config';

/** Qwen3VLVisionConfig and Qwen3_5VisionConfig. */
export const QWEN3_VISION = {
  ...{ depth: 27, hidden_size: 1152, hidden_act: 'gelu_pytorch_tanh', intermediate_size: 4304, num_heads: 16 },
  ...{ in_channels: 3, patch_size: 16, spatial_merge_size: 2, temporal_patch_size: 2, out_hidden_size: 3584 },
  ...{ num_position_embeddings: 2304 },
};

/** Qwen2VLImageProcessor and Qwen3VLVideoProcessor. */
const CLASSES = { ...QWEN_STEPS, classes: ['Qwen2VL', 'Qwen3VL'] };
const IMAGES: ProcessorSpec = {
  ...CLASSES,
  defaults: { ...CLIP_PIXELS, size: { shortest_edge: 56 * 56, longest_edge: 28 * 28 * 1280 } },
};
const VIDEOS: ProcessorSpec = {
  ...CLASSES,
  defaults: {
    ...{ image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] },
    size: { shortest_edge: 128 * 32 * 32, longest_edge: 32 * 32 * 768 },
  },
};

/** What the chat template prints for a video. */
export const QWEN3_VIDEO = '<|vision_start|><|video_pad|><|vision_end|>';
/** Qwen3VLVideoProcessor. */
const SAMPLING = { fps: 2, min: 4, max: 768 };
const NORM_EPS = 1e-6;

/** The vision side of a plan. */
export interface Qwen3Vision {
  readonly shape: QwenShape;
  readonly tower: TowerConfig;
  readonly projector: readonly ProjectorStep[];
  readonly pixels: Normalization;
  readonly sampling: FrameSampling;
  layout(size: MediumSize): MediumLayout;
}

/** @param d width of the decoder. @throws SparseVilaError `ERR_CONFIG_INVALID`, `ERR_CONFIG_UNSUPPORTED` */
export function qwen3Vision(
  vision: ConfigReader,
  { images, videos }: Pick<CheckpointFiles, 'images' | 'videos'>,
  d: number,
): Qwen3Vision {
  const shape = qwenShape(vision);
  const tower = towerOf(vision, shape);
  const pictures = processorSettings(images, IMAGES);
  const videoSettings = processorSettings(videos, VIDEOS);
  const resize = { image: qwenResize(pictures, shape), video: qwenResize(videoSettings, shape) };
  if (vision.size('out_hidden_size') !== d) throw vision.wrong('out_hidden_size', `the decoder's hidden_size ${d}`);
  return {
    shape,
    tower,
    projector: qwen3Merger('', tower.hiddenSize, tower.hiddenSize * shape.merge ** 2, d),
    pixels: qwenPixels(pictures, videoSettings),
    sampling: { ...samplingSettings(videoSettings, SAMPLING), rule: 'qwen3' },
    layout: (size) =>
      size.kind === 'image' ? qwenLayout(size, shape, resize.image) : videoLayout(size, shape, resize.video),
  };
}

function towerOf(vision: ConfigReader, { patch, frames }: QwenShape): TowerConfig {
  const [layers, heads, e] = [
    vision.size('depth', undefined, MOST_LAYERS),
    vision.size('num_heads'),
    vision.size('hidden_size', undefined, MOST_FEATURES),
  ];
  // Rows and columns turn a quarter of a head's numbers each, twice.
  if (e % (4 * heads) !== 0) throw vision.wrong('num_heads', `a divisor of a quarter of hidden_size ${e}`);
  const side = Math.sqrt(vision.size('num_position_embeddings'));
  if (!Number.isInteger(side)) throw vision.wrong('num_position_embeddings', 'a square number');
  return {
    ...PLAIN_VIT,
    ...{ hiddenSize: e, layers, heads, imageSize: undefined, patchSize: patch, patchFrames: frames },
    ...{
      patchBias: true,
      classToken: false,
      preNorm: false,
      normEps: NORM_EPS,
      ropeTheta: qwenTowerTheta(vision),
      fusedQkv: true,
    },
    ...{ intermediateSize: vision.size('intermediate_size'), depth: layers, resampledSide: side },
    activation: activation(vision, TOWER_ACTIVATIONS, 'gelu_pytorch_tanh'),
  };
}

/** A norm of each patch, or of a token's patches together, then two linear layers. */
export function qwen3Merger(at: string, normWidth: number, width: number, d: number): readonly ProjectorStep[] {
  return [
    { kind: 'norm', name: `${at}norm`, width: normWidth, bias: true, eps: NORM_EPS },
    { kind: 'linear', name: `${at}linear_fc1`, rows: width, cols: width, bias: true, activation: 'gelu' },
    { kind: 'linear', name: `${at}linear_fc2`, rows: d, cols: width, bias: true, activation: 'none' },
  ];
}

/** Every plane is a run of its own, with the mean time of its first and last frame before it. */
function videoLayout(size: MediumSize, shape: QwenShape, resize: QwenResize): MediumLayout {
  const { patch, frames: span, merge } = shape;
  const to = smartResizeVideo(size, size.frames, { factor: patch * merge, span }, resize.limits);
  const layout = qwenLayout(size, shape, resize, to);
  const { t, h, w } = layout.grids[0] as (typeof layout.grids)[0];
  const times = timesOf(size);
  const timeOf = (frame: number): number => times[Math.min(frame, size.frames - 1)] as number;
  const planes = Array.from({ length: t }, (_, plane) => (timeOf(plane * span) + timeOf((plane + 1) * span - 1)) / 2);
  return {
    ...layout,
    runs: planes.map((_, plane) => ({ grid: 0, from: plane * h * w, to: (plane + 1) * h * w })),
    text: planes.map((time) => `<${tenths(time)} seconds><|vision_start|>${MARKER}<|vision_end|>`).join(''),
  };
}

/** Python's `.1f`, which rounds what lies exactly between two tenths to the even one; only quarters do. */
function tenths(time: number): string {
  return (Number.isInteger(4 * time) ? halfEven(10 * time) / 10 : time).toFixed(1);
}
