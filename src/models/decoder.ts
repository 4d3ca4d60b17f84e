// A decoder of Llama's, Qwen's or Gemma's kind over the KV caches and states of one or more sequences: embedding, layers, final norm, head. The loop over the
// layers is here and not in an op, so that a session can read the relevance of each layer. Knows no images.
// Source: transformers 5.24 `modeling_llama.py`, `modeling_qwen2.py`, `modeling_gemma3.py`.

import { type DecoderLayerWeights, decoderLayers, LAST_ROW_COLUMNS, type RaggedRows } from '../ops/decoder_layer';
import type { KvType } from '../ops/kv_cache';
import { linear } from '../ops/linear';
import { rmsNorm } from '../ops/norm';
import { type Position, ropeTables } from '../ops/rope';
import { floats, int32, noInt32, withInt32 } from '../ops/run';
import { guard } from '../runtime/op_error';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { type DecoderConfig, ropeInverseFrequencies } from './config';
import { withAdded } from './deepstack';
import { type KvCache, kvCache, type LayerRange } from './kv_cache';
import { layerWeights } from './layer_weights';
import { rowEmbedding } from './row_embedding';
import { checkBatch, giveColumns, type Segment, sharedInputs, windowSpans } from './segments';
import { meanQuery, unrotatedKeys } from './unrotated';
import type { Weights } from './weights';

export interface ForwardOptions {
  /** Default: all layers. */
  readonly layers?: LayerRange | undefined;
  /** Receives the hidden state that enters each layer, and finally the one that leaves the last. Must not dispose of it. */
  readonly onHidden?: ((layer: number, x: Tensor) => void) | undefined;
  readonly pace: () => Promise<void>;
}

export interface EmbeddingTable {
  readonly config: DecoderConfig;
  /** Rows of the embedding table, f32 [n, d]. */
  embed(ids: readonly number[] | Int32Array): Tensor;
}

export interface Decoder extends EmbeddingTable {
  /**
   * An empty cache of at most `limit` rows, by default the model's number of positions.
   * @throws SparseVilaError `ERR_OUT_OF_MEMORY` if one layer would not fit into the machine's memory
   */
  cache(type: KvType, limit?: number): KvCache;
  /**
   * Runs x, f32 [t, d], the concatenated rows of the batch's segments, through the layers; returns f32 [t, d]. Does not dispose of x. The
   * bits of a segment do not depend on the other segments. Caches grow by the rows, and keep their content if this throws.
   * @throws SparseVilaError `ERR_CONTEXT_OVERFLOW`, `ERR_OUT_OF_MEMORY`
   */
  forward(x: Tensor, batch: readonly Segment[], options: ForwardOptions): Promise<Tensor>;
  /**
   * The attention of the last row of x, f32 [t, d], in a layer that is not run: softmax over the layer's rows and the rows of x, mean over
   * heads: f32 [all rows]. Writes x's keys and values without counting them, after the counted rows and those at the positions `written`,
   * which earlier calls wrote. Reserve room for all calls before the first one, because growing copies counted rows only.
   */
  look(layer: number, x: Tensor, { cache, positions }: Segment, written: readonly Position[]): Float32Array;
  /** The mean of the queries of x, f32 [t, d], in a layer that attends all rows, before rotary embedding: f32 [heads, c]. */
  meanQuery(layer: number, x: Tensor): Float32Array;
  /**
   * Keys before rotary embedding of consecutive cached rows, which begin with `first`, in some layers that attend all rows: per layer f32 [rows,
   * kvHeads, c].
   */
  keys(layers: readonly number[], cache: KvCache, first: number, positions: readonly Position[]): Float32Array[];
  /** The final norm of all rows, f32 [t, d]. */
  norm(x: Tensor): Tensor;
  /** Final norm and head of the given rows, f32 [n, vocabulary]; the caller disposes of it. */
  scores(x: Tensor, rows: readonly number[]): Tensor;
  /** Final norm and head of the last row, or of all rows, as JavaScript numbers: f32 [rows, vocabulary]. */
  logits(x: Tensor, all?: boolean): Float32Array;
}

/** Maximum number of rows of a segment in a decode step: a token with drafted ones. */
const STEP_ROWS = 32;
const TABLE = 'model.embed_tokens.weight';
/** Tensors of a decoder that the embedding alone does not need. */
export const BEYOND_EMBEDDING = [/^(?!model\.embed_tokens\.)/];

/** A decoder that can only embed. */
export async function embeddingTable(config: DecoderConfig, weights: Weights): Promise<EmbeddingTable> {
  const table = weights.matrix([TABLE], [config.vocabSize], config.hiddenSize, { isTable: true });
  return { config, embed: rowEmbedding(config, table, weights.typeOf(TABLE)) };
}

/** Builds the decoder from canonically named weights; awaits `loaded` after the weights of each layer. */
export async function decoder(config: DecoderConfig, weights: Weights, loaded: () => Promise<void>): Promise<Decoder> {
  const { hiddenSize: d, vocabSize } = config;
  const isTied = config.tieWordEmbeddings && !weights.has('lm_head.weight');
  const table = weights.matrix([TABLE], [vocabSize], d, { isTable: !isTied });
  // A checkpoint with a head uses it regardless of tie_word_embeddings; without a head, the config must say that it is tied. The largest
  // matrices come first, because while one is read its file's pages are in memory, too.
  const head = isTied ? table : weights.matrix(['lm_head.weight'], [vocabSize], d);
  const layers: DecoderLayerWeights[] = [];
  for (let i = 0; i < config.layers; i++) {
    layers.push(layerWeights(config, weights, i));
    await loaded();
  }
  const norm = weights.tensor('model.norm.weight', [d], Number(config.normOffset ?? false));
  const eps = weights.constant([config.rmsNormEps]);
  const none = weights.constant([]);
  const ropes = [config, ...(config.localRope === undefined ? [] : [{ ...config, ...config.localRope }])];
  const embeddings = ropes.map((rope) => ({ frequencies: ropeInverseFrequencies(rope), axes: rope.ropeAxes }));
  const { firstPosition = 0 } = config;
  const moved = (position: Position): Position => (typeof position === 'number' ? position + firstPosition : position);
  const tableOf = (positions: ArrayLike<Position>): Tensor =>
    ropeTables(firstPosition === 0 ? positions : Array.from(positions, moved), embeddings);
  const scores = (x: Tensor, rows: readonly number[]): Tensor => {
    const normalized = onRows(x, rows, (part) => rmsNorm(part, norm, eps));
    try {
      return capped(linear(normalized, head, none), config.finalSoftcap);
    } finally {
      normalized.dispose();
    }
  };

  return {
    config,
    cache: (type, limit = config.maxPositions) => kvCache(config, type, limit),
    embed: rowEmbedding(config, table, weights.typeOf(TABLE)),
    forward: (x, batch, options) => forward(x, batch, config, layers, tableOf, options),
    look: (layer, x, segment, written) =>
      look(x, tableOf(segment.positions), config, layers, { layer, segment, written }),
    meanQuery: (layer, x) => meanQuery(config, layers[layer] as DecoderLayerWeights, x),
    keys: (wanted, cache, first, positions) => {
      const table = ropeTables(positions.map(moved).map(negated), embeddings.slice(0, 1));
      try {
        return wanted.map((layer) => {
          const begin = cache.at(layer, first);
          const range = { begin, end: begin + positions.length };
          return unrotatedKeys(config, cache.tensor(layer), range, table);
        });
      } finally {
        table.dispose();
      }
    },
    norm: (x) => rmsNorm(x, norm, eps),
    scores,
    logits: (x, all = false) => {
      const t = x.shape[0] as number;
      const values = scores(x, all ? Array.from({ length: t }, (_, row) => row) : [t - 1]);
      try {
        return floats(values);
      } finally {
        values.dispose();
      }
    },
  };
}

const negated = (position: Position): Position =>
  typeof position === 'number' ? -position : [-position[0], -position[1], -position[2]];

async function forward(
  x: Tensor,
  batch: readonly Segment[],
  config: DecoderConfig,
  layers: readonly DecoderLayerWeights[],
  tableOf: (positions: ArrayLike<Position>) => Tensor,
  { layers: range = { from: 0, to: layers.length }, onHidden, pace }: ForwardOptions,
): Promise<Tensor> {
  checkBatch(x, batch);
  for (const { cache, positions } of batch) cache.reserve(positions.length, range);
  const positions = batch.flatMap((segment) => Array.from(segment.positions));
  const table = tableOf(positions);
  const shared = sharedInputs(batch, config);
  const means: Tensor[] = [];
  // All layers in one call: a call per layer would add a third to the time of a decode step.
  const isOneCall =
    onHidden === undefined &&
    batch.every((one) => one.positions.length <= STEP_ROWS && one.onColumns === undefined && one.added === undefined);
  const steps = isOneCall && range.to > range.from ? [range] : eachLayer(range);
  let h = x.clone();
  try {
    for (const step of steps) {
      onHidden?.(step.from, h);
      const [y, columns] = runLayers(h, table, batch, layers, step, shared);
      means.push(columns);
      h.dispose();
      h = y;
      h = withAdded(y, batch, step.from);
      await pace();
    }
    // Read after all layers are enqueued; reading earlier would make a device wait for the host after each layer.
    for (const [i, columns] of means.entries()) giveColumns(batch, range.from + i, columns);
    onHidden?.(range.to, h);
  } catch (error) {
    h.dispose();
    throw error;
  } finally {
    for (const tensor of [...means, table, shared.segments, shared.ranges, shared.spans]) tensor?.dispose();
  }
  for (const segment of batch) segment.cache.extend(segment.positions, range);
  return h;
}

const eachLayer = ({ from, to }: LayerRange): LayerRange[] =>
  Array.from({ length: to - from }, (_, i) => ({ from: from + i, to: from + i + 1 }));

/** Runs several layers in one call. */
function runLayers(
  x: Tensor,
  table: Tensor,
  batch: readonly Segment[],
  weights: readonly DecoderLayerWeights[],
  { from, to }: LayerRange,
  shared: RaggedRows,
): [Tensor, Tensor] {
  const layers = weights.slice(from, to).map((own, at) => ({
    weights: own,
    sequences: batch.map(({ cache, views }) => ({
      kv: cache.tensor(from + at),
      rows: views?.[from + at]?.rows ?? noInt32(),
    })),
  }));
  return decoderLayers(x, table, shared, layers);
}

/** The attention of the last row of x in a layer, without the rest of the layer. Disposes of the table. */
function look(
  x: Tensor,
  table: Tensor,
  config: DecoderConfig,
  layers: readonly DecoderLayerWeights[],
  {
    layer,
    segment,
    written,
  }: { readonly layer: number; readonly segment: Segment; readonly written: readonly Position[] },
): Float32Array {
  const { cache, positions } = segment;
  const length = (cache.lengths[layer] as number) + written.length;
  const earlier = [...cache.positions(layer), ...written.map(Number)];
  const spans = windowSpans(config, layer, earlier, positions);
  const ranges = layers.flatMap((_, at) => (at === layer ? [0, length, LAST_ROW_COLUMNS] : [0, 0, 0]));
  const shared = { segments: int32([x.shape[0] as number]), ranges: int32(ranges), spans };
  const called = {
    weights: layers[layer] as DecoderLayerWeights,
    sequences: [{ kv: cache.tensor(layer), rows: noInt32() }],
  };
  let outputs: readonly Tensor[] = [];
  try {
    const [y, columns] = decoderLayers(x, table, shared, [called]);
    outputs = [y, columns];
    return floats(columns).slice();
  } finally {
    for (const tensor of [table, shared.segments, shared.ranges, spans, ...outputs]) tensor?.dispose();
  }
}

/** Logits between -cap and cap; the given ones are disposed of. */
function capped(logits: Tensor, cap: number | undefined): Tensor {
  if (cap === undefined) return logits;
  const { tf } = start();
  try {
    return guard('the softcap of logits', () => tf.tidy(() => tf.mul(tf.tanh(tf.mul(logits, 1 / cap)), cap)));
  } finally {
    logits.dispose();
  }
}

/** Applies `work` to the given rows. */
function onRows(x: Tensor, rows: readonly number[], work: (part: Tensor) => Tensor): Tensor {
  const { tf } = start();
  const [t, d] = x.shape as [number, number];
  const [first = 0] = rows;
  const isRun = rows.every((row, i) => row === first + i);
  if (isRun && rows.length === t) return work(x);
  const part = isRun ? tf.slice(x, [first, 0], [rows.length, d]) : withInt32(rows, (indices) => tf.gather(x, indices));
  try {
    return work(part);
  } finally {
    part.dispose();
  }
}
