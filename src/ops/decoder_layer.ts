// One decoder layer of Llama or Qwen2 as a single op over the layer's KV cache. It equals the composition of the small ops
// bit for bit, because both call the same kernels.

import type { Tensor } from '@tensorflow/tfjs-core';
import { runTwo } from './run';
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
  return runTwo('SvDecoderLayer', [
    x,
    kv,
    table,
    rows,
    range,
    w.inputNorm,
    w.qkv.tensor,
    w.qkvBias,
    w.o.tensor,
    w.oBias,
    w.postNorm,
    w.gateUp.tensor,
    w.down.tensor,
    w.eps,
  ]);
}
