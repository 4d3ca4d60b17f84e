// Decoder layers of Llama, Qwen2, Qwen3, Gemma 3 or Qwen3.5 as a single op over the KV caches and states of one or more sequences. It equals the composition of
// the small ops bit for bit, because both call the same kernels, and a batch equals its sequences one by one.

import type { Tensor } from '../runtime/tensor';
import { type DeltaSizes, deltaNumbers } from './delta';
import { ACTIVATION_CODE, type Activation } from './linear';
import { floatBits, noInt32, runLists, runTwo, withInt32 } from './run';
import type { PackedMatrix } from './weights';

/**
 * The vectors of a layer, in the order of its record; norms are RMSNorms. `qNorm`, `kNorm`: of each head, before rotary embedding.
 * `attentionNorm`, `mlpNorm`: of the outputs of attention and the MLP, before they are added. Only `inputNorm`, `postNorm` (before the MLP) and
 * `eps` are required. `conv`, `aLog`, `dtBias` and `deltaNorm` are of a delta layer, see `deltaRule`.
 */
export const DECODER_VECTORS = [
  ...(['inputNorm', 'qkvBias', 'qNorm', 'kNorm', 'oBias', 'attentionNorm', 'postNorm', 'mlpNorm', 'eps'] as const),
  ...(['conv', 'aLog', 'dtBias', 'deltaNorm'] as const),
] as const;

export interface DecoderLayerWeights {
  /** `DECODER_VECTORS` as a record. */
  readonly vectors: Tensor;
  /** int32, of `decoderLayerOptions`. */
  readonly options: Tensor;
  /**
   * Query heads, then key heads, then value heads; with `gated` of the options, a query and a gate of each head in the place of queries. Of a delta
   * layer also z, as wide as the values.
   */
  readonly qkv: PackedMatrix;
  /** Of a delta layer: b of each value head, then a. */
  readonly ba?: PackedMatrix;
  readonly o: PackedMatrix;
  /** Packed with `gated`. */
  readonly gateUp: PackedMatrix;
  readonly down: PackedMatrix;
}

/**
 * The options of a layer besides its weights.
 * @param present of the vectors' record
 * @param index the layer's own in `RaggedRows.ranges` and `spans`
 * @param own what differs from a layer of Llama
 */
export function decoderLayerOptions(
  present: number,
  index: number,
  {
    activation = 'silu',
    scale = 0,
    softcap = 0,
    table = 0,
    headWidth = 0,
    gated = false,
    delta,
  }: DecoderLayerSettings = {},
): number[] {
  const sizes = delta === undefined ? [0, 0, 0, 0, 0] : deltaNumbers(delta);
  const attention = [floatBits(scale), index, floatBits(softcap), table, headWidth, Number(gated)];
  return [present, ACTIVATION_CODE[activation], ...attention, ...sizes];
}

export interface DecoderLayerSettings {
  /** Of the gate; default silu. */
  readonly activation?: Activation;
  /** Factor of scores; default 0, which stands for c ** -0.5. */
  readonly scale?: number;
  /** Scores s become softcap tanh(s / softcap); default 0: they stay. */
  readonly softcap?: number;
  /** Which of the rotary tables turns queries and keys; default the first. */
  readonly table?: number;
  /** Width of queries and keys; default 0: all of a head is rotated, and a table is half as wide. */
  readonly headWidth?: number;
  /** Whether what attention gives is multiplied by sigmoid(gate). */
  readonly gated?: boolean;
  /** Sizes of a delta layer. */
  readonly delta?: DeltaSizes | undefined;
}

/** In `RaggedRows.ranges`: the columns of the last row alone. */
export const LAST_ROW_COLUMNS = 2;

/** The state of a sequence in one layer. */
export interface CachedSequence {
  /** Its cache, to which its rows of x are appended; of a delta layer its state. */
  readonly kv: Tensor;
  /** int32 [r]: gathered cache rows that it attends, ascending, below the tail. */
  readonly rows: Tensor;
}

export interface CachedLayer {
  readonly weights: DecoderLayerWeights;
  /** One for each sequence of the batch, in its order. */
  readonly sequences: readonly CachedSequence[];
}

/** The sequence of each row of x, and the rows that it attends. */
export interface RaggedRows {
  /** int32 [sequences]: number of rows of x of each sequence, in order. */
  readonly segments: Tensor;
  /**
   * int32 [layers, sequences, 3] (tail, length, columns), for all layers of a model, each of which knows its index: first cache row of the
   * contiguous tail, number of rows in the cache before x, and whether to return the column mean of the softmax over [rows, tail .. length +
   * t - 1] (t: the sequence's rows of x). 2: the columns of its last row alone; the layer then computes nothing else but its cache, and y is
   * empty. -k: the column mean of its last k rows.
   */
  readonly ranges: Tensor;
  /**
   * int32 [layers, t, 2] (from, to), as ranges: row i of x attends rows from .. to - 1 of its sequence's [rows, tail .. length + t - 1], counted from
   * 0. Absent: all up to its own.
   */
  readonly spans?: Tensor | undefined;
}

/**
 * One layer after another: h = x + o(attend(rope(qkv(norm(x))))), y = h + down(act(gate(n)) up(n)), n = norm(h). The bits of a
 * sequence do not depend on the others, nor on how many layers a call runs.
 * @param x f32 [t, d], the concatenated rows of all sequences
 * @param table f32 [2 tables, t, c / 2], of the rows' positions: for each rotary embedding that layers use cosines, then sines
 * @returns [y f32 [t, d] of the last layer, or [0, d], columns f32 [n]: the requested ones, by layer and then by sequence]
 */
export function decoderLayers(
  x: Tensor,
  table: Tensor,
  { segments, ranges, spans = noInt32() }: RaggedRows,
  layers: readonly CachedLayer[],
): [Tensor, Tensor] {
  const [layer] = layers;
  const [sequence] = layer?.sequences ?? [];
  if (layers.length === 1 && layer?.sequences.length === 1 && sequence !== undefined) {
    const shared = [x, table, segments, ranges, spans, sequence.kv, sequence.rows];
    return runTwo('SvDecoderLayer', [...shared, ...weightTensors(layer.weights)]);
  }
  const cached = layers.flatMap(({ sequences }) => sequences);
  const weights = layers.map((layer) => weightTensors(layer.weights));
  const lists = (weights[0] ?? []).flatMap((_, i) => weights.map((list) => list[i] as Tensor));
  const inputs = [
    x,
    table,
    segments,
    ranges,
    spans,
    ...cached.map(({ kv }) => kv),
    ...cached.map(({ rows }) => rows),
    ...lists,
  ];
  return runLists('SvDecoderLayers', { M: cached.length, N: layers.length }, inputs);
}

/**
 * One layer, of index 0, and one sequence.
 * @param range int32 [tail, length, columns]
 * @param spans int32 [1, t, 2], as `RaggedRows.spans`
 * @returns [y f32 [t, d], columns f32 [r + length - tail + t] or [0]]
 */
export function decoderLayer(
  x: Tensor,
  kv: Tensor,
  table: Tensor,
  rows: Tensor,
  range: Tensor,
  weights: DecoderLayerWeights,
  spans?: Tensor,
): [Tensor, Tensor] {
  const layer = { weights, sequences: [{ kv, rows }] };
  return withInt32([x.shape[0] ?? 0], (segments) =>
    decoderLayers(x, table, { segments, ranges: range, spans }, [layer]),
  );
}

/** A layer without `ba` has any tensor in its place. */
function weightTensors({ vectors, options, qkv, ba = qkv, o, gateUp, down }: DecoderLayerWeights): Tensor[] {
  return [vectors, options, ...[qkv, ba, o, gateUp, down].map(({ tensor }) => tensor)];
}
