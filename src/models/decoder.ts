// A Llama or Qwen2 decoder over a KV cache: embedding, layers, final norm, head. The loop over layers is here, so that the
// session can look at each layer's relevance. Knows no images.
// Source: transformers 5.18 `modeling_llama.py`, `modeling_qwen2.py`.

import { gatheredSparseAttention } from '../ops/attention';
import { type CachedLayer, type DecoderLayerWeights, decoderLayer, decoderLayers } from '../ops/decoder_layer';
import { allocKv, appendKv, type KvType } from '../ops/kv_cache';
import { embed, linear } from '../ops/linear';
import { rmsNorm } from '../ops/norm';
import { rope, ropeTable } from '../ops/rope';
import { floats, int32 } from '../ops/run';
import type { PackedMatrix } from '../ops/weights';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import { type DecoderConfig, ropeInverseFrequencies } from './config';
import type { Weights } from './weights';

/** The rows a layer attends besides the contiguous rest of the cache. */
export interface LayerView {
  /** int32 [r], ascending, below `tail`. */
  readonly rows: Tensor;
  /** First row of the contiguous rest. */
  readonly tail: number;
}

export interface ForwardOptions {
  /** Rows in the cache before x: in every layer, or one number per layer. */
  readonly length: number | readonly number[];
  /** Runs layers from .. to - 1 only; default all. */
  readonly layers?: { readonly from: number; readonly to: number } | undefined;
  /** One per layer; absent: everything. */
  readonly views?: readonly LayerView[] | undefined;
  /** Receives each layer's column mean over all its rows (mean over heads and rows of x). */
  readonly onColumns?: ((layer: number, columns: Float32Array) => void) | undefined;
  /** Receives the hidden state that enters each layer run, and last the one that leaves them. Not to be disposed of. */
  readonly onHidden?: ((layer: number, x: Tensor) => void) | undefined;
  readonly breathe: () => Promise<void>;
}

export interface EmbeddingTable {
  readonly config: DecoderConfig;
  /** Rows of the embedding table, f32 [n, d]. */
  embed(ids: readonly number[] | Int32Array): Tensor;
}

export interface Decoder extends EmbeddingTable {
  /** One KV tensor per layer. */
  allocate(capacity: number, type: KvType): Tensor[];
  /** Runs x, f32 [t, d], at `positions` through the layers, appending to the cache; returns f32 [t, d]. x is not disposed of. */
  forward(x: Tensor, positions: ArrayLike<number>, cache: readonly Tensor[], options: ForwardOptions): Promise<Tensor>;
  /**
   * What the last row of x, f32 [t, d], would attend in a layer, without running it: mean over heads of the softmax over all rows
   * in the cache, x's own included: f32 [length + t]. Leaves x's keys and values behind the `length` rows of the layer's cache.
   */
  look(layer: number, x: Tensor, positions: ArrayLike<number>, cache: readonly Tensor[], length: number): Float32Array;
  /** The final norm of all rows, f32 [t, d]. */
  norm(x: Tensor): Tensor;
  /** Final norm and head of the last row, f32 [1, vocabulary]; the caller disposes of it. */
  scores(x: Tensor): Tensor;
  /** The same of the last row, or of all rows, read: f32 [rows, vocabulary]. */
  logits(x: Tensor, all?: boolean): Float32Array;
}

const TABLE = 'model.embed_tokens.weight';
/** The tensors of a decoder that its embedding does without. */
export const BEYOND_EMBEDDING = [/^(?!model\.embed_tokens\.)/];

/** The embedding alone. */
export async function embeddingTable(config: DecoderConfig, weights: Weights): Promise<EmbeddingTable> {
  const table = weights.matrix([TABLE], [config.vocabSize], config.hiddenSize, { isTable: true });
  return { config, embed: (ids) => embed(table, ids) };
}

/** Builds the decoder from canonically named weights; `loaded` is awaited after each layer's weights. */
export async function decoder(config: DecoderConfig, weights: Weights, loaded: () => Promise<void>): Promise<Decoder> {
  const { hiddenSize: d, vocabSize, headDim, kvHeads } = config;
  const isTied = config.tieWordEmbeddings && !weights.has('lm_head.weight');
  const table = weights.matrix([TABLE], [vocabSize], d, { isTable: !isTied });
  const layers: DecoderLayerWeights[] = [];
  for (let i = 0; i < config.layers; i++) {
    layers.push(layerWeights(config, weights, i));
    await loaded();
  }
  const norm = weights.tensor('model.norm.weight', [d]);
  const eps = weights.constant([config.rmsNormEps]);
  // A checkpoint that holds a head uses it, whatever tie_word_embeddings says; without one, the config has to say that it is tied.
  const head = isTied ? table : weights.matrix(['lm_head.weight'], [vocabSize], d);
  const none = weights.constant([]);
  const frequencies = ropeInverseFrequencies(config);
  const scoresOf = (x: Tensor, all: boolean): Tensor => headScores(x, norm, eps, head, none, all);

  return {
    config,
    allocate: (capacity, type) => layers.map(() => allocKv(kvHeads, capacity, headDim, type)),
    embed: (ids) => embed(table, ids),
    forward: (x, positions, cache, options) => forward(x, ropeTable(positions, frequencies), layers, cache, options),
    look: (layer, x, positions, cache, length) =>
      look(x, ropeTable(positions, frequencies), layers[layer] as DecoderLayerWeights, cache[layer] as Tensor, {
        config,
        length,
      }),
    norm: (x) => rmsNorm(x, norm, eps),
    scores: (x) => scoresOf(x, false),
    logits: (x, all = false) => {
      const scores = scoresOf(x, all);
      try {
        return floats(scores);
      } finally {
        scores.dispose();
      }
    },
  };
}

function layerWeights(config: DecoderConfig, weights: Weights, i: number): DecoderLayerWeights {
  const { hiddenSize: d, intermediateSize: m, heads, kvHeads, headDim, attentionBias } = config;
  const at = `model.layers.${i}`;
  const [q, kv] = [heads * headDim, kvHeads * headDim];
  const qkv = ['q', 'k', 'v'].map((name) => `${at}.self_attn.${name}_proj`);
  const none = (): Tensor => weights.constant([]);
  return {
    inputNorm: weights.tensor(`${at}.input_layernorm.weight`, [d]),
    qkv: weights.matrix(
      qkv.map((name) => `${name}.weight`),
      [q, kv, kv],
      d,
    ),
    qkvBias: attentionBias.qkv
      ? weights.vectors(
          qkv.map((name) => `${name}.bias`),
          [q, kv, kv],
        )
      : none(),
    o: weights.matrix([`${at}.self_attn.o_proj.weight`], [d], q),
    oBias: attentionBias.o ? weights.tensor(`${at}.self_attn.o_proj.bias`, [d]) : none(),
    postNorm: weights.tensor(`${at}.post_attention_layernorm.weight`, [d]),
    gateUp: weights.matrix([`${at}.mlp.gate_proj.weight`, `${at}.mlp.up_proj.weight`], [m, m], d, { gated: true }),
    down: weights.matrix([`${at}.mlp.down_proj.weight`], [d], m),
    eps: weights.constant([config.rmsNormEps]),
  };
}

async function forward(
  x: Tensor,
  table: Tensor,
  layers: readonly DecoderLayerWeights[],
  cache: readonly Tensor[],
  options: ForwardOptions,
): Promise<Tensor> {
  const { onColumns, onHidden, breathe } = options;
  const { from, to } = options.layers ?? { from: 0, to: layers.length };
  const { inputs, dispose } = layerInputs(layers.slice(from, to), cache, from, options);
  const means: Tensor[] = [];
  let h = x.clone();
  try {
    if (x.shape[0] === 1 && to > from && onColumns === undefined && onHidden === undefined) {
      const y = decoderLayers(h, table, inputs);
      h.dispose();
      h = y;
      await breathe();
      return h;
    }
    for (const [i, { kv, rows, range, weights }] of inputs.entries()) {
      onHidden?.(from + i, h);
      const [y, columns] = decoderLayer(h, kv, table, rows, range, weights);
      means.push(columns);
      h.dispose();
      h = y;
      await breathe();
    }
    // Read once all layers are under way: a device would wait for its host after each.
    for (const [i, columns] of means.entries()) onColumns?.(from + i, floats(columns));
    onHidden?.(to, h);
    return h;
  } catch (error) {
    h.dispose();
    throw error;
  } finally {
    for (const columns of means) columns.dispose();
    dispose();
    table.dispose();
  }
}

/** What each layer attends, as its op wants it; equal ranges share a tensor. */
function layerInputs(
  layers: readonly DecoderLayerWeights[],
  cache: readonly Tensor[],
  from: number,
  { length, views, onColumns }: ForwardOptions,
): { inputs: CachedLayer[]; dispose: () => void } {
  const everything = int32([]);
  const ranges = new Map<string, Tensor>();
  const rangeOf = (tail: number, before: number): Tensor => {
    const key = `${tail} ${before}`;
    const range = ranges.get(key) ?? int32([tail, before, onColumns === undefined ? 0 : 1]);
    ranges.set(key, range);
    return range;
  };
  const inputs = layers.map((weights, at) => {
    const i = from + at;
    const view = views?.[i];
    const before = typeof length === 'number' ? length : (length[i] as number);
    return { weights, kv: cache[i] as Tensor, rows: view?.rows ?? everything, range: rangeOf(view?.tail ?? 0, before) };
  });
  const dispose = (): void => {
    for (const range of ranges.values()) range.dispose();
    everything.dispose();
  };
  return { inputs, dispose };
}

/** The first half of a layer, as `decoderLayer` computes it, and the last row's attention. */
function look(
  x: Tensor,
  table: Tensor,
  w: DecoderLayerWeights,
  kv: Tensor,
  { config, length }: { config: DecoderConfig; length: number },
): Float32Array {
  const { tf } = start();
  const { heads, kvHeads, headDim: c } = config;
  const t = x.shape[0] as number;
  const columns = tf.tidy(() => {
    const qkv = linear(rmsNorm(x, w.inputNorm, w.eps), w.qkv, w.qkvBias) as ReturnType<typeof tf.tensor2d>;
    const headsOf = (from: number, count: number): Tensor =>
      tf.reshape(tf.slice(qkv, [0, from * c], [t, count * c]), [t, count, c]);
    appendKv(kv, rope(headsOf(heads, kvHeads), table), headsOf(heads + kvHeads, kvHeads), length);
    const q = tf.slice(rope(headsOf(0, heads), table), [t - 1, 0, 0], [1, heads, c]);
    const attended = gatheredSparseAttention(q, kv, int32([]), { tail: 0, length: length + t, columns: true });
    return attended.columns;
  });
  try {
    return floats(columns).slice();
  } finally {
    columns.dispose();
    table.dispose();
  }
}

/** Final norm and head of the last row, or of all. */
function headScores(x: Tensor, norm: Tensor, eps: Tensor, head: PackedMatrix, none: Tensor, all: boolean): Tensor {
  const { tf } = start();
  const [t, d] = x.shape as [number, number];
  const rows = all || t === 1 ? x.clone() : tf.slice(x, [t - 1, 0], [1, d]);
  const normalised = rmsNorm(rows, norm, eps);
  try {
    return linear(normalised, head, none);
  } finally {
    rows.dispose();
    normalised.dispose();
  }
}
