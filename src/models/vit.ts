// The SigLIP vision tower: patch embedding, learned positions, pre-norm blocks. Gives the features of a chosen hidden state
// and, of layers that are asked for, salience and keys. Knows no projector and no decoder.
// Source: transformers 5.18 `modeling_siglip.py`.

import { SparseVilaError } from '../errors';
import { linear } from '../ops/linear';
import { layerNorm } from '../ops/norm';
import { float32, floats } from '../ops/run';
import { type VisionBlockWeights, visionBlock } from '../ops/vision_block';
import type { PackedMatrix } from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { SiglipConfig } from './config';
import type { Weights } from './weights';

/**
 * What is wanted of which layers: integers, negative from the last; or, between 0 and 1, shares of the depth, rounded. They
 * may lie above the features' layer.
 */
export interface TowerTaps {
  readonly salience?: readonly number[];
  readonly keys?: readonly number[];
}

/** What a tower gives for one image. */
export interface TowerOutput {
  /** f32 [n, e]; the caller disposes of it. */
  readonly features: Tensor;
  /** For each layer asked for, the column mean of its attention over heads and rows, f32 [n]; sums to 1. */
  readonly salience: readonly Float32Array[];
  /** For each layer asked for, its keys, all heads side by side, f32 [n, e]. */
  readonly keys: readonly Float32Array[];
}

export interface VisionTower {
  readonly config: SiglipConfig;
  /** Patches per side. */
  readonly grid: number;
  /** @param pixels f32 [3, size, size], normalised */
  run(pixels: Float32Array, taps: TowerTaps, breathe: () => Promise<void>): Promise<TowerOutput>;
}

/** Names that published towers hold and no one reads: the pooling head, and the other half of a whole SigLIP. */
export const UNUSED_TOWER_WEIGHTS = [
  /^head\./,
  /position_ids$/,
  /^post_layernorm\./,
  /^text_model\./,
  /^logit_(scale|bias)$/,
];

/** `vision_model.encoder…`, `encoder…` and `vision_tower.vision_model.encoder…` are one. */
export const canonicalTowerName = (name: string): string => name.replace(/^(vision_tower\.)?(vision_model\.)?/, '');

/**
 * Builds the tower. `selectLayer` is the index into hidden states (0 = embeddings, negative from the end), as in
 * `mm_vision_select_layer`: -2 is the output of the last block but one. It must be one of the layers + 1 there are.
 * `loaded` is awaited after each block's weights.
 */
export async function siglipTower(
  config: SiglipConfig,
  weights: Weights,
  selectLayer: number,
  loaded: () => Promise<void>,
): Promise<VisionTower> {
  const { hiddenSize: e, layers, patchSize, channels, imageSize } = config;
  const grid = Math.floor(imageSize / patchSize);
  const patchWidth = channels * patchSize * patchSize;
  const embedding = weights.matrix(['embeddings.patch_embedding.weight'], [e], patchWidth);
  const embeddingBias = weights.tensor('embeddings.patch_embedding.bias', [e]);
  const positions = weights.tensor('embeddings.position_embedding.weight', [grid * grid, e]);
  const blocks: VisionBlockWeights[] = [];
  for (let i = 0; i < layers; i++) {
    blocks.push(blockWeights(config, weights, i));
    await loaded();
  }
  const depth = selectLayer < 0 ? layers + 1 + selectLayer : selectLayer;

  return {
    config,
    grid,
    async run(pixels, taps, breathe) {
      const salient = (taps.salience ?? []).map((layer) => layerIndex(layer, layers));
      const keyed = (taps.keys ?? []).map((layer) => layerIndex(layer, layers));
      const last = [...salient, ...keyed].reduce((most, layer) => Math.max(most, layer), depth - 1);
      const salience = new Map<number, Float32Array>();
      const keys = new Map<number, Float32Array>();
      let x = embedPatches(pixels, config, grid, embedding, embeddingBias, positions);
      let features = depth === 0 ? x.clone() : undefined;
      try {
        for (const [i, block] of blocks.slice(0, last + 1).entries()) {
          await breathe();
          if (keyed.includes(i)) keys.set(i, blockKeys(x, block, e));
          const columns = salient.includes(i);
          if (i === last && i >= depth && !columns) break;
          const [y, mean] = visionBlock(x, block, { features: i < Math.max(depth, last), columns });
          if (columns) salience.set(i, floats(mean));
          mean.dispose();
          x.dispose();
          x = y;
          if (i + 1 === depth) features = x.clone();
        }
      } catch (error) {
        features?.dispose();
        throw error;
      } finally {
        x.dispose();
      }
      if (features === undefined) throw new Error('a tower without features');
      const of = (found: Map<number, Float32Array>) => (i: number) => found.get(i) ?? new Float32Array();
      return { features, salience: salient.map(of(salience)), keys: keyed.map(of(keys)) };
    },
  };
}

function layerIndex(layer: number, layers: number): number {
  const isShare = layer > 0 && layer < 1;
  const index = isShare ? Math.min(layers - 1, Math.round(layer * layers)) : layer < 0 ? layers + layer : layer;
  if (!Number.isInteger(index) || index < 0 || index >= layers) {
    throw new SparseVilaError(
      'ERR_OPTION_INVALID',
      `Expected a layer between ${-layers} and ${layers - 1} (the tower has ${layers} layers) for salienceLayer, or a share ` +
        `of the depth between 0 and 1, received ${layer}.`,
    );
  }
  return index;
}

/** The keys of a block that x, f32 [n, e], enters: f32 [n, e]. As the block itself makes them. */
function blockKeys(x: Tensor, { norm1, norm1Bias, qkv, qkvBias, eps }: VisionBlockWeights, e: number): Float32Array {
  const { tf } = start();
  const normalised = layerNorm(x, norm1, norm1Bias, eps);
  const all = linear(normalised, qkv, qkvBias);
  const keys = tf.slice(all as ReturnType<typeof tf.tensor2d>, [0, e], [x.shape[0] as number, e]);
  try {
    return floats(keys).slice();
  } finally {
    for (const tensor of [normalised, all, keys]) tensor.dispose();
  }
}

function blockWeights(config: SiglipConfig, weights: Weights, i: number): VisionBlockWeights {
  const { hiddenSize: e, intermediateSize: m, heads, hiddenAct, layerNormEps } = config;
  const at = `encoder.layers.${i}`;
  const qkv = ['q', 'k', 'v'].map((name) => `${at}.self_attn.${name}_proj`);
  return {
    norm1: weights.tensor(`${at}.layer_norm1.weight`, [e]),
    norm1Bias: weights.tensor(`${at}.layer_norm1.bias`, [e]),
    qkv: weights.matrix(
      qkv.map((name) => `${name}.weight`),
      [e, e, e],
      e,
    ),
    qkvBias: weights.vectors(
      qkv.map((name) => `${name}.bias`),
      [e, e, e],
    ),
    out: weights.matrix([`${at}.self_attn.out_proj.weight`], [e], e),
    outBias: weights.tensor(`${at}.self_attn.out_proj.bias`, [e]),
    norm2: weights.tensor(`${at}.layer_norm2.weight`, [e]),
    norm2Bias: weights.tensor(`${at}.layer_norm2.bias`, [e]),
    fc1: weights.matrix([`${at}.mlp.fc1.weight`], [m], e),
    fc1Bias: weights.tensor(`${at}.mlp.fc1.bias`, [m]),
    fc2: weights.matrix([`${at}.mlp.fc2.weight`], [e], m),
    fc2Bias: weights.tensor(`${at}.mlp.fc2.bias`, [e]),
    eps: weights.constant([layerNormEps]),
    heads,
    activation: hiddenAct,
  };
}

/** The strided convolution of the patch embedding as one product: pixels [c, H, W] -> patches [n, c p p] -> f32 [n, e]. */
function embedPatches(
  pixels: Float32Array,
  { channels, patchSize: p, imageSize }: SiglipConfig,
  grid: number,
  embedding: PackedMatrix,
  bias: Tensor,
  positions: Tensor,
): Tensor {
  const patches = new Float32Array(grid * grid * channels * p * p);
  let at = 0;
  for (let row = 0; row < grid; row++)
    for (let col = 0; col < grid; col++)
      for (let c = 0; c < channels; c++)
        for (let y = 0; y < p; y++) {
          const from = (c * imageSize + row * p + y) * imageSize + col * p;
          patches.set(pixels.subarray(from, from + p), at);
          at += p;
        }
  const { tf } = start();
  const x = float32(patches, [grid * grid, channels * p * p]);
  const embedded = linear(x, embedding, bias);
  const placed = tf.add(embedded, positions);
  x.dispose();
  embedded.dispose();
  return placed;
}
