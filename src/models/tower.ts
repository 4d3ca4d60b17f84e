// The vision tower: patch embedding, learned positions, an optional class row, pre-norm blocks. One function for all towers, driven by
// a record of options. Computes the features of one hidden state, and salience and keys of the requested layers.
// Source: transformers 5.24 `modeling_siglip.py`, `modeling_clip.py`, `modeling_qwen2_5_vl.py`.

import { SparseVilaError } from '../errors';
import { type Activation, linear } from '../ops/linear';
import { layerNorm } from '../ops/norm';
import { float32, joinNumbers } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { Patches } from './media';
import { mapRows, resampledRows, selectRows } from './row_maps';
import { placeOf, readBlock, type SegmentPlace, type TowerBlock } from './tower_blocks';
import type { FrameMemory } from './tower_reuse';
import type { Weights } from './weights';

export interface TowerConfig {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  /** Side of the square input of learned positions, in pixels; undefined: no learned positions. */
  readonly imageSize: number | undefined;
  /** Side of a square table of learned positions that is resampled to each segment's grid of patches; undefined: none. */
  readonly resampledSide: number | undefined;
  /** Side of a patch in pixels, and number of frames that it covers. */
  readonly patchSize: number;
  readonly patchFrames: number;
  /** Whether the patch embedding has a bias. */
  readonly patchBias: boolean;
  /** Whether each segment begins with a learned class row. */
  readonly classToken: boolean;
  /** Whether there is a norm before the first block, and one after the last, which the last hidden state then has behind it. */
  readonly preNorm: boolean;
  readonly postNorm?: boolean;
  /** The norms of the blocks: LayerNorm or RMSNorm. */
  readonly norm: 'layer' | 'rms';
  readonly normEps: number;
  /** Whether one matrix makes queries, keys and values. */
  readonly fusedQkv: boolean;
  readonly qkvBias: boolean;
  /** Whether queries and keys each have an RMSNorm over all heads side by side. */
  readonly qkNorm: boolean;
  /** Whether learned factors for each channel scale the outputs of attention and MLP. */
  readonly layerScale: boolean;
  /** Whose attention is the salience: the class row's, or the mean of all rows'. */
  readonly salience: 'class' | 'columns';
  /** Base of rotary positions by row and column; undefined: none. */
  readonly ropeTheta: number | undefined;
  /** Layers that attend within the windows of `Patches.windows`. */
  readonly windowed: readonly number[];
  /** Whether the MLP is down(act(gate(x)) up(x)) instead of fc2(act(fc1(x))). */
  readonly gated: boolean;
  readonly activation: Exclude<Activation, 'none'>;
  /** The hidden state that becomes features: 0 is the embedding, `layers` the output of the last block. */
  readonly depth: number;
  /** Other hidden states that stand beside it in the features of a patch. */
  readonly deepstack: readonly number[];
}

/**
 * The layers whose salience and keys are requested: integers, negative from the last; or shares of the depth between 0 and 1, rounded. They
 * may be above the layer of the features.
 */
export interface TowerTaps {
  readonly salience?: readonly number[];
  readonly keys?: readonly number[];
}

/** The outputs of a tower for one medium. Segments follow each other; the class row of a segment comes first. */
export interface TowerOutput {
  /** f32 [n, e], or [n, (1 + k) e] with k hidden states of `deepstack` beside the first; the caller disposes of it. */
  readonly features: Tensor;
  /**
   * For each requested layer, the attention that each row receives, f32 [n]: from the class row, mean over heads; or, without a class row,
   * mean over heads and rows. The rows of a segment sum to 1.
   */
  readonly salience: readonly Float32Array[];
  /** For each requested layer, its keys, the heads concatenated, f32 [n, e]. */
  readonly keys: readonly Float32Array[];
}

export interface Tower {
  readonly config: TowerConfig;
  /**
   * @param values makes the values of patches begin … end - 1, f32 [end - begin, 3 frames p p], when they are needed
   * @param memory what is reused of earlier segments, each of which is a frame of one film
   * @throws SparseVilaError `ERR_OPTION_INVALID` for a layer that the tower does not have
   */
  run(
    patches: Patches,
    values: (begin: number, end: number) => Float32Array,
    taps: TowerTaps,
    pause: () => Promise<void>,
    memory?: FrameMemory,
  ): Promise<TowerOutput>;
}

/** A function on rows, f32 [n, e]. */
type RowFunction = (x: Tensor) => Tensor;

/** Builds the tower from canonically named weights; awaits `loaded` after each block's. */
export async function buildTower(config: TowerConfig, weights: Weights, loaded: () => Promise<void>): Promise<Tower> {
  const embed = embedding(config, weights);
  const blocks: TowerBlock[] = [];
  for (let i = 0; i < config.layers; i++) {
    blocks.push(readBlock(config, weights, i));
    await loaded();
  }
  const last = config.postNorm ? norm(weights, 'post_layernorm', config.hiddenSize, config.normEps) : undefined;
  const finish = config.depth === config.layers ? last : undefined;
  return {
    config,
    async run(patches, values, taps, pause, memory) {
      const { segments } = patches;
      const indices = (layers: readonly number[] = []) => layers.map((layer) => layerIndex(layer, config.layers));
      const wanted = { salience: indices(taps.salience), keys: indices(taps.keys) };
      const outputs: TowerOutput[] = [];
      try {
        for (let s = 0; s + 1 < segments.length; s++) {
          const [begin, end] = [segments[s] as number, segments[s + 1] as number];
          const place = placeOf(config, patches, begin, end);
          try {
            const first = embed(values(begin, end), patches, s);
            memory?.next();
            outputs.push(await runSegment(config, blocks, { first, place, memory }, wanted, pause));
          } finally {
            for (const tensor of [place.table, place.spans]) tensor?.dispose();
          }
        }
        return finished(joinOutputs(outputs, wanted), finish);
      } finally {
        for (const { features } of outputs) features.dispose();
      }
    },
  };
}

/** An output whose features went through the norm after the last block. */
function finished(output: TowerOutput, last: RowFunction | undefined): TowerOutput {
  if (last === undefined) return output;
  const features = last(output.features);
  output.features.dispose();
  return { ...output, features };
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

/** Patch values of one segment, f32 [n, 3 frames p p], to the first hidden state: the strided convolution as one product, plus positions and class row. */
function embedding(
  config: TowerConfig,
  weights: Weights,
): (values: Float32Array, patches: Patches, segment: number) => Tensor {
  const { hiddenSize: e, patchSize, patchFrames, imageSize, normEps } = config;
  const width = 3 * patchFrames * patchSize * patchSize;
  const kernel = weights.matrix(['embeddings.patch_embedding.weight'], [e], width);
  const bias = config.patchBias ? weights.tensor('embeddings.patch_embedding.bias', [e]) : weights.constant([]);
  const classRow = config.classToken ? weights.tensor('embeddings.class_embedding', [e]) : undefined;
  const rowsOf = (side: number): number => Math.floor(side / patchSize) ** 2 + Number(config.classToken);
  const table = 'embeddings.position_embedding.weight';
  const positions = imageSize === undefined ? undefined : weights.tensor(table, [rowsOf(imageSize), e]);
  const resampled = config.resampledSide && weights.tensor(table, [config.resampledSide ** 2, e]);
  const normalize: RowFunction = config.preNorm ? norm(weights, 'pre_layrnorm', e, normEps) : (x) => x.clone();
  const across = Math.floor((imageSize ?? 0) / patchSize);
  return (values, { corners, segments, extents }, segment) => {
    const { tf } = start();
    const n = values.length / width;
    const begin = segments[segment] as number;
    const cellAt = (patch: number, which: number): number => (corners[3 * patch + which] as number) / patchSize;
    return tf.tidy(() => {
      const patches = linear(float32(values, [n, width]), kernel, bias);
      const rows = classRow === undefined ? patches : tf.concat([tf.reshape(classRow, [1, e]), patches]);
      if (resampled) {
        const cells = Int32Array.from(corners.subarray(3 * begin, 3 * (begin + n)), (pixel) => pixel / patchSize);
        const last = extents?.subarray(2 * segment, 2 * segment + 2).map((pixel) => pixel / patchSize);
        return normalize(tf.add(rows, mapRows(resampled, resampledRows(cells, config.resampledSide ?? 0, last))));
      }
      if (positions !== undefined && extents !== undefined) {
        const first = Number(config.classToken);
        const own = Array.from({ length: n }, (_, i) => first + cellAt(begin + i, 1) * across + cellAt(begin + i, 2));
        return normalize(tf.add(rows, mapRows(positions, selectRows(first === 1 ? [0, ...own] : own))));
      }
      return normalize(positions === undefined ? rows : tf.add(rows, positions));
    });
  };
}

function norm(weights: Weights, name: string, e: number, eps: number): RowFunction {
  const [weight, bias] = [weights.tensor(`${name}.weight`, [e]), weights.tensor(`${name}.bias`, [e])];
  const epsilon = weights.constant([eps]);
  return (x) => layerNorm(x, weight, bias, epsilon);
}

interface SegmentInput {
  /** The first hidden state, f32 [n, e]. */
  readonly first: Tensor;
  readonly place: SegmentPlace;
  readonly memory: FrameMemory | undefined;
}

/** Runs the blocks over one segment; disposes of `first`. */
async function runSegment(
  { depth, deepstack }: TowerConfig,
  blocks: readonly TowerBlock[],
  { first, place, memory }: SegmentInput,
  wanted: { readonly salience: readonly number[]; readonly keys: readonly number[] },
  pause: () => Promise<void>,
): Promise<TowerOutput> {
  const last = [...wanted.salience, ...wanted.keys].reduce((most, layer) => Math.max(most, layer), depth - 1);
  const salience = new Map<number, Float32Array>();
  const keys = new Map<number, Float32Array>();
  let x = first;
  const depths = [depth, ...deepstack];
  const states = new Map<number, Tensor>();
  const keep = (at: number): unknown => depths.includes(at) && states.set(at, x.clone());
  try {
    keep(0);
    for (const [i, block] of blocks.slice(0, last + 1).entries()) {
      await pause();
      const want = { salience: wanted.salience.includes(i), keys: wanted.keys.includes(i) };
      const all = { ...want, features: i < Math.max(depth, last) };
      const seen = memory === undefined ? block.run(x, place, all) : memory.run(i, block, x, place, all);
      if (seen.salience !== undefined) salience.set(i, seen.salience);
      if (seen.keys !== undefined) keys.set(i, seen.keys);
      if (seen.y === undefined) break;
      x.dispose();
      x = seen.y;
      keep(i + 1);
    }
  } catch (error) {
    for (const state of states.values()) state.dispose();
    throw error;
  } finally {
    x.dispose();
  }
  const of = (found: Map<number, Float32Array>) => (i: number) => found.get(i) as Float32Array;
  return {
    features: beside(depths.map((at) => states.get(at) as Tensor)),
    salience: wanted.salience.map(of(salience)),
    keys: wanted.keys.map(of(keys)),
  };
}

/** Rows side by side, f32 [n, k e]; the tensors are disposed of, or the only one returned. */
function beside(states: readonly Tensor[]): Tensor {
  const [only] = states;
  if (only !== undefined && states.length === 1) return only;
  const joined = start().tf.concat([...states], 1);
  for (const state of states) state.dispose();
  return joined;
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
