// Decoder layers of Llama or Qwen2 as a single op over the KV caches of one or more sequences. It equals the composition of the
// small ops bit for bit, because both call the same kernels, and a batch equals its sequences one by one.

import type { Tensor } from '../runtime/tensor';
import { noInt32, runLists, withInt32 } from './run';
import type { PackedMatrix } from './weights';

export interface DecoderLayerWeights {
  /** f32 [d] */
  readonly inputNorm: Tensor;
  /** Query heads, then key heads, then value heads. */
  readonly qkv: PackedMatrix;
  /** f32 [outputs of qkv], or [0] */
  readonly qkvBias: Tensor;
  readonly o: PackedMatrix;
  readonly oBias: Tensor;
  /** f32 [d] */
  readonly postNorm: Tensor;
  /** Packed with `gated`. */
  readonly gateUp: PackedMatrix;
  readonly down: PackedMatrix;
  /** f32 [1] */
  readonly eps: Tensor;
}

/** The state of a sequence in one layer. */
export interface CachedSequence {
  /** Its cache, to which its rows of x are appended. */
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
   * int32 [layers, sequences, 3] (tail, length, columns): first cache row of the contiguous tail, number of rows in the cache before x, and
   * whether to return the column mean of the softmax over [rows, tail .. length + t - 1] (t: the sequence's rows of x).
   */
  readonly ranges: Tensor;
  /**
   * int32 [layers, t, 2] (from, to): row i of x attends rows from .. to - 1 of its sequence's [rows, tail .. length + t - 1], counted from
   * 0. Absent: all up to its own.
   */
  readonly spans?: Tensor | undefined;
}

/**
 * One layer after another: h = x + o(attend(rope(qkv(norm(x))))), y = h + down(silu(gate(n)) up(n)), n = norm(h). The bits of a
 * sequence do not depend on the others, nor on how many layers a call runs.
 * @param x f32 [t, d], the concatenated rows of all sequences
 * @param table f32 [2, t, c / 2], of the rows' positions
 * @returns [y f32 [t, d] of the last layer, columns f32 [n]: the requested ones, by layer and then by sequence]
 */
export function decoderLayers(
  x: Tensor,
  table: Tensor,
  { segments, ranges, spans = noInt32() }: RaggedRows,
  layers: readonly CachedLayer[],
): [Tensor, Tensor] {
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
 * One layer, one sequence.
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

function weightTensors(w: DecoderLayerWeights): Tensor[] {
  return [w.inputNorm, w.qkv.tensor, w.qkvBias, w.o.tensor, w.oBias, w.postNorm, w.gateUp.tensor, w.down.tensor, w.eps];
}
