// One decoder layer of Llama or Qwen2 as a single op over the layer's KV cache. It equals the composition of the small ops
// bit for bit, because both call the same kernels.

import type { Tensor } from '../runtime/tensor';
import { runLists, runTwo } from './run';
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

/**
 * h = x + o(attend(rope(qkv(norm(x))))), y = h + down(silu(gate(n)) up(n)), n = norm(h); the rows of x are appended to kv.
 * @param x f32 [t, d]
 * @param table f32 [2, t, c / 2], of the rows' positions
 * @param rows int32 [r]: gathered cache rows, ascending, below tail
 * @param range int32 [tail, length, columns]: first row of the contiguous rest, rows in the cache before x, whether the
 *   column mean of the softmax over [rows, tail .. length + t - 1] is wanted
 * @returns [y f32 [t, d], columns f32 [r + length - tail + t] or [0]]
 */
export function decoderLayer(
  x: Tensor,
  kv: Tensor,
  table: Tensor,
  rows: Tensor,
  range: Tensor,
  w: DecoderLayerWeights,
): [Tensor, Tensor] {
  return runTwo('SvDecoderLayer', [x, table, kv, rows, range, ...weightTensors(w)]);
}

/** A layer of `decoderLayers`: its weights and cache, and the rows that it attends, as of `decoderLayer`; no columns. */
export interface CachedLayer {
  readonly weights: DecoderLayerWeights;
  readonly kv: Tensor;
  readonly rows: Tensor;
  readonly range: Tensor;
}

/**
 * `decoderLayer` of one layer after another in a single call, with the same bits: in decoding, the calls would take as long
 * as a third of the work.
 * @param x f32 [t, d]
 * @param table f32 [2, t, c / 2]
 * @returns y f32 [t, d] of the last layer
 */
export function decoderLayers(x: Tensor, table: Tensor, layers: readonly CachedLayer[]): Tensor {
  const lists = layers.map(({ kv, rows, range, weights }) => [kv, rows, range, ...weightTensors(weights)]);
  const inputs = (lists[0] ?? []).flatMap((_, i) => lists.map((list) => list[i] as Tensor));
  return runLists('SvDecoderLayers', layers.length, [x, table, ...inputs]);
}

function weightTensors(w: DecoderLayerWeights): Tensor[] {
  return [w.inputNorm, w.qkv.tensor, w.qkvBias, w.o.tensor, w.oBias, w.postNorm, w.gateUp.tensor, w.down.tensor, w.eps];
}
