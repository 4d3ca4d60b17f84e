// The vision tower: patch embedding, learned positions, an optional class row, pre-norm blocks. One function for CLIP and SigLIP, driven by
// a record of options. It gives the features of one hidden state and, of the layers that are asked for, salience and keys.
// Source: transformers 5.24 `modeling_siglip.py`, `modeling_clip.py`.

import { SparseVilaError } from '../errors';
import { attention } from '../ops/attention';
import { type Activation, linear } from '../ops/linear';
import { layerNorm } from '../ops/norm';
import { float32, floats } from '../ops/run';
import { type VisionBlockWeights, visionBlock } from '../ops/vision_block';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Patches } from './media';
import type { Weights } from './weights';

export interface TowerConfig {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  /** Sides of a square input and of a patch, pixels. */
  readonly imageSize: number;
  readonly patchSize: number;
  /** Whether the patch embedding has a bias. */
  readonly patchBias: boolean;
  /** Whether each segment begins with a learned class row. */
  readonly classToken: boolean;
  /** Whether there is a norm before the first block. */
  readonly preNorm: boolean;
  readonly normEps: number;
  readonly activation: Exclude<Activation, 'none'>;
  /** The hidden state that becomes features: 0 is the embedding, `layers` the output of the last block. */
  readonly depth: number;
}

/**
 * What is wanted of which layers: integers, negative from the last; or, between 0 and 1, shares of the depth, rounded. They
 * may lie above the features' layer.
 */
export interface TowerTaps {
  readonly salience?: readonly number[];
  readonly keys?: readonly number[];
}

/** What a tower gives for the patches of one medium. The rows of a segment, its class row first, follow those of the segment before. */
export interface TowerOutput {
  /** f32 [n, e]; the caller disposes of it. */
  readonly features: Tensor;
  /**
   * For each layer asked for, the attention each row receives, f32 [n]: mean over heads of the class row's, or over heads and rows where
   * there is no class row. The rows of a segment sum to 1.
   */
  readonly salience: readonly Float32Array[];
  /** For each layer asked for, its keys, all heads side by side, f32 [n, e]. */
  readonly keys: readonly Float32Array[];
}

export interface Tower {
  readonly config: TowerConfig;
  /**
   * @param values f32 [end - begin, 3 p p]: what the patches begin … end - 1 hold, made when they are needed
   * @throws SparseVilaError `ERR_OPTION_INVALID` for a layer that the tower does not have
   */
  run(
    patches: Patches,
    values: (begin: number, end: number) => Float32Array,
    taps: TowerTaps,
    pause: () => Promise<void>,
  ): Promise<TowerOutput>;
}

/** Turns rows into rows, f32 [n, e]. */
type RowFunction = (x: Tensor) => Tensor;

/** Builds the tower from canonically named weights; `loaded` is awaited after each block's. */
export async function buildTower(config: TowerConfig, weights: Weights, loaded: () => Promise<void>): Promise<Tower> {
  const embed = embedding(config, weights);
  const blocks: VisionBlockWeights[] = [];
  for (let i = 0; i < config.layers; i++) {
    blocks.push(blockWeights(config, weights, i));
    await loaded();
  }
  return {
    config,
    async run({ segments }, values, taps, pause) {
      const indices = (layers: readonly number[] = []) => layers.map((layer) => layerIndex(layer, config.layers));
      const wanted = { salience: indices(taps.salience), keys: indices(taps.keys) };
      const outputs: TowerOutput[] = [];
      try {
        for (let s = 0; s + 1 < segments.length; s++) {
          const [begin, end] = [segments[s] as number, segments[s + 1] as number];
          outputs.push(await runSegment(config, blocks, embed(values(begin, end)), wanted, pause));
        }
        return joinOutputs(outputs, wanted);
      } finally {
        for (const { features } of outputs) features.dispose();
      }
    },
  };
}

function layerIndex(layer: number, layers: number): number {
  const isShare = layer > 0 && layer < 1;
  const index = isShare ? Math.min(layers - 1, Math.round(layer * layers)) : layer < 0 ? layers + layer : layer;
  if (Number.isInteger(index) && index >= 0 && index < layers) return index;
  throw new SparseVilaError(
    'ERR_OPTION_INVALID',
    `Expected a layer between ${-layers} and ${layers - 1} (the tower has ${layers} layers) for salienceLayer, or a share ` +
      `of the depth between 0 and 1, received ${layer}.`,
  );
}

/** Patch values of one segment, f32 [n, 3 p p], to the first hidden state: the strided convolution as one product, positions, class row. */
function embedding(config: TowerConfig, weights: Weights): (values: Float32Array) => Tensor {
  const { hiddenSize: e, patchSize, imageSize, normEps } = config;
  const width = 3 * patchSize * patchSize;
  const cells = Math.floor(imageSize / patchSize) ** 2;
  const kernel = weights.matrix(['embeddings.patch_embedding.weight'], [e], width);
  const bias = config.patchBias ? weights.tensor('embeddings.patch_embedding.bias', [e]) : weights.constant([]);
  const classRow = config.classToken ? weights.tensor('embeddings.class_embedding', [e]) : undefined;
  const positions = weights.tensor('embeddings.position_embedding.weight', [cells + Number(config.classToken), e]);
  const normalize: RowFunction = config.preNorm ? norm(weights, 'pre_layrnorm', e, normEps) : (x) => x.clone();
  return (values) => {
    const { tf } = start();
    return tf.tidy(() => {
      const patches = linear(float32(values, [values.length / width, width]), kernel, bias);
      const rows = classRow === undefined ? patches : tf.concat([tf.reshape(classRow, [1, e]), patches]);
      return normalize(tf.add(rows, positions));
    });
  };
}

function norm(weights: Weights, name: string, e: number, eps: number): RowFunction {
  const [weight, bias] = [weights.tensor(`${name}.weight`, [e]), weights.tensor(`${name}.bias`, [e])];
  const epsilon = weights.constant([eps]);
  return (x) => layerNorm(x, weight, bias, epsilon);
}

function blockWeights(config: TowerConfig, weights: Weights, i: number): VisionBlockWeights {
  const { hiddenSize: e, intermediateSize: m, heads, activation, normEps } = config;
  const name = (module: string): string => `encoder.layers.${i}.${module}`;
  const matrix = (module: string, rows: number, k: number) => weights.matrix([name(`${module}.weight`)], [rows], k);
  const vector = (tensor: string, length: number): Tensor => weights.tensor(name(tensor), [length]);
  const qkv = ['q_proj', 'k_proj', 'v_proj'].map((projection) => `self_attn.${projection}`);
  return {
    norm1: vector('layer_norm1.weight', e),
    norm1Bias: vector('layer_norm1.bias', e),
    qkv: weights.matrix(
      qkv.map((module) => name(`${module}.weight`)),
      [e, e, e],
      e,
    ),
    qkvBias: weights.vectors(
      qkv.map((module) => name(`${module}.bias`)),
      [e, e, e],
    ),
    out: matrix('self_attn.out_proj', e, e),
    outBias: vector('self_attn.out_proj.bias', e),
    norm2: vector('layer_norm2.weight', e),
    norm2Bias: vector('layer_norm2.bias', e),
    fc1: matrix('mlp.fc1', m, e),
    fc1Bias: vector('mlp.fc1.bias', m),
    fc2: matrix('mlp.fc2', e, m),
    fc2Bias: vector('mlp.fc2.bias', e),
    eps: weights.constant([normEps]),
    heads,
    activation,
  };
}

/** The blocks over one segment; x, f32 [n, e], is disposed of. */
async function runSegment(
  { depth, classToken, heads }: TowerConfig,
  blocks: readonly VisionBlockWeights[],
  first: Tensor,
  wanted: { readonly salience: readonly number[]; readonly keys: readonly number[] },
  pause: () => Promise<void>,
): Promise<TowerOutput> {
  const last = [...wanted.salience, ...wanted.keys].reduce((most, layer) => Math.max(most, layer), depth - 1);
  const salience = new Map<number, Float32Array>();
  const keys = new Map<number, Float32Array>();
  let x = first;
  let features = depth === 0 ? x.clone() : undefined;
  try {
    for (const [i, block] of blocks.slice(0, last + 1).entries()) {
      await pause();
      const isSalient = wanted.salience.includes(i);
      const look = lookInto(x, block, { keys: wanted.keys.includes(i), classRow: isSalient && classToken, heads });
      if (look.keys !== undefined) keys.set(i, look.keys);
      if (look.classRow !== undefined) salience.set(i, look.classRow);
      const columns = isSalient && !classToken;
      if (i === last && i >= depth && !columns) break;
      const [y, mean] = visionBlock(x, block, { features: i < Math.max(depth, last), columns });
      if (columns) salience.set(i, floats(mean).slice());
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
  const of = (found: Map<number, Float32Array>) => (i: number) => found.get(i) as Float32Array;
  return {
    features: features as Tensor,
    salience: wanted.salience.map(of(salience)),
    keys: wanted.keys.map(of(keys)),
  };
}

/**
 * What the fused block does not give: the keys of a block that x, f32 [n, e], enters, f32 [n, e]; and the attention of its first row,
 * mean over heads, f32 [n]. Computed as the block computes them.
 */
function lookInto(
  x: Tensor,
  { norm1, norm1Bias, qkv, qkvBias, eps }: VisionBlockWeights,
  want: { readonly keys: boolean; readonly classRow: boolean; readonly heads: number },
): { readonly keys?: Float32Array; readonly classRow?: Float32Array } {
  if (!want.keys && !want.classRow) return {};
  const { tf } = start();
  const [n, e] = x.shape as [number, number];
  const found: { keys?: Float32Array; classRow?: Float32Array } = {};
  tf.tidy(() => {
    const all = linear(layerNorm(x, norm1, norm1Bias, eps), qkv, qkvBias);
    const part = (i: number, rows: number): Tensor => tf.slice(all, [0, i * e], [rows, e]);
    if (want.keys) found.keys = floats(part(1, n)).slice();
    if (!want.classRow) return;
    const headsOf = (rows: Tensor): Tensor => tf.reshape(rows, [-1, want.heads, e / want.heads]);
    const [q, k, v] = [headsOf(part(0, 1)), headsOf(part(1, n)), headsOf(part(2, n))];
    found.classRow = floats(attention(q, k, v, { columns: true }).columns).slice();
  });
  return found;
}

function joinOutputs(
  outputs: readonly TowerOutput[],
  wanted: { salience: readonly number[]; keys: readonly number[] },
): TowerOutput {
  const [only] = outputs;
  if (only !== undefined && outputs.length === 1) return { ...only, features: only.features.clone() };
  const { tf } = start();
  return {
    features: tf.concat(outputs.map(({ features }) => features)),
    salience: wanted.salience.map((_, i) => joinNumbers(outputs.map(({ salience }) => salience[i] as Float32Array))),
    keys: wanted.keys.map((_, i) => joinNumbers(outputs.map(({ keys }) => keys[i] as Float32Array))),
  };
}

function joinNumbers(parts: readonly Float32Array[]): Float32Array {
  const joined = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
