// Reads config files of vision towers: SigLIP and CLIP, each with the defaults of its transformers class.
// Source: transformers 5.24 `configuration_siglip.py`, `configuration_clip.py`.

import type { ConfigReader } from '../json';
import { activation, MOST_FEATURES, MOST_LAYERS } from './config';
import type { TowerConfig } from './tower';

/** A tower with learned positions, before the family has chosen the hidden state. */
export type TowerShape = Omit<TowerConfig, 'depth'> & { readonly imageSize: number };

/** Options that CLIP and SigLIP do not have. */
export const PLAIN_VIT = {
  patchFrames: 1,
  norm: 'layer',
  fusedQkv: false,
  qkvBias: true,
  qkNorm: false,
  layerScale: false,
  salience: 'columns',
  ropeTheta: undefined,
  windowed: [],
  gated: false,
  resampledSide: undefined,
  deepstack: [],
} as const;

const SIGLIP_TYPES: readonly string[] = ['siglip_vision_model', 'siglip'];

/**
 * The tower of a `siglip_vision_model` config, or of the `vision_config` inside a `siglip` one.
 * @param types the accepted `model_type`s
 * @throws SparseVilaError `ERR_CONFIG_UNSUPPORTED` for another `model_type`, `ERR_CONFIG_INVALID` for wrong values
 */
export function siglipTower(top: ConfigReader, types = SIGLIP_TYPES): TowerShape {
  const config = top.string('model_type', '') === 'siglip' ? (top.object('vision_config') ?? top) : top;
  if (!types.includes(config.string('model_type', types[0])))
    throw config.unsupported('model_type', types.join(' or '));
  return {
    ...PLAIN_VIT,
    ...sizes(config, { hidden: 768, intermediate: 3072, layers: 12, heads: 12, image: 224, patch: 16 }),
    patchBias: true,
    classToken: false,
    preNorm: false,
    normEps: config.float('layer_norm_eps', 1e-6),
    activation: activation(config, TOWER_ACTIVATIONS, 'gelu_pytorch_tanh'),
  };
}

/** The tower of a `clip_vision_model` config. @throws SparseVilaError as `siglipTower` */
export function clipTower(config: ConfigReader): TowerShape {
  if (config.string('model_type', 'clip_vision_model') !== 'clip_vision_model')
    throw config.unsupported('model_type', 'clip_vision_model');
  return {
    ...PLAIN_VIT,
    ...sizes(config, { hidden: 768, intermediate: 3072, layers: 12, heads: 12, image: 224, patch: 32 }),
    patchBias: false,
    classToken: true,
    salience: 'class',
    preNorm: true,
    normEps: config.float('layer_norm_eps', 1e-5),
    activation: activation(config, TOWER_ACTIVATIONS, 'quick_gelu'),
  };
}

/** Names of transformers' ACT2FN; names with the same formula map to one. */
export const TOWER_ACTIVATIONS = {
  ...{ gelu_pytorch_tanh: 'gelu_pytorch_tanh', gelu_new: 'gelu_pytorch_tanh', gelu_fast: 'gelu_pytorch_tanh' },
  ...{ gelu: 'gelu', gelu_python: 'gelu', quick_gelu: 'quick_gelu' },
} as const satisfies Readonly<Record<string, TowerConfig['activation']>>;

/** Patches per side of a square input: a bound far above any published model. */
const MOST_CELLS = 1024;

type Defaults = Readonly<Record<'hidden' | 'intermediate' | 'layers' | 'heads' | 'image' | 'patch', number>>;

export function sizes(config: ConfigReader, defaults: Defaults) {
  const hiddenSize = config.size('hidden_size', defaults.hidden, MOST_FEATURES);
  const heads = config.size('num_attention_heads', defaults.heads);
  if (hiddenSize % heads !== 0) throw config.wrong('num_attention_heads', `a divisor of hidden_size (${hiddenSize})`);
  const imageSize = config.size('image_size', defaults.image);
  const patchSize = config.size('patch_size', defaults.patch);
  if (patchSize > imageSize) throw config.wrong('patch_size', `at most image_size (${imageSize})`);
  if (imageSize / patchSize > MOST_CELLS)
    throw config.wrong('image_size', `at most ${MOST_CELLS} patches of ${patchSize} pixels per side`);
  if (config.size('num_channels', 3) !== 3) throw config.unsupported('num_channels', '3');
  return {
    ...{ hiddenSize, heads, imageSize, patchSize },
    intermediateSize: config.size('intermediate_size', defaults.intermediate),
    layers: config.size('num_hidden_layers', defaults.layers, MOST_LAYERS),
  };
}

/** The depth of a hidden state that a config gives by index: 0 is the embedding; negative indices count from the last. */
export function hiddenStateDepth(config: ConfigReader, key: string, fallback: number, layers: number): number {
  const index = config.number(key, fallback);
  const depth = index < 0 ? layers + 1 + index : index;
  if (Number.isInteger(depth) && depth >= 0 && depth <= layers) return depth;
  throw config.wrong(key, `one of the tower's ${layers + 1} hidden states (${-layers - 1} to ${layers})`);
}
