// The segments of a batch: whose rows they are, what these attend, and how that enters the calls of the decoder layers.

import { SparseVilaError } from '../errors';
import type { RaggedRows } from '../ops/decoder_layer';
import type { Position } from '../ops/rope';
import { floats, int32 } from '../ops/run';
import type { Tensor } from '../runtime/tensor';
import type { KvCache } from './kv_cache';

/** The cache rows that a layer attends, besides the contiguous tail. */
export interface LayerView {
  /** int32 [r], ascending, below `tail`. */
  readonly rows: Tensor;
  /** First row of the contiguous tail. */
  readonly tail: number;
}

/** Rows of one sequence in x, with one position each. */
export interface Segment {
  /** The cache to which the keys and values of the rows are appended. */
  readonly cache: KvCache;
  readonly positions: ArrayLike<Position>;
  /** f32 [rows, d] each: the k-th is added to the output of layer k (deepstack). */
  readonly added?: readonly Tensor[] | undefined;
  /** One view per layer; absent: all rows are attended. */
  readonly views?: readonly LayerView[] | undefined;
  /**
   * One per layer, or absent: int32 [rows of the segment, 2] (from, to): row i attends from .. to - 1 of the layer's rows instead of all up
   * to its own. Rows are counted in the order of attention: those of the view, then the contiguous tail, new ones included.
   */
  readonly spans?: readonly (Int32Array | undefined)[] | undefined;
  /** Receives, per layer, the column mean over all rows that the layer attends (mean over heads and rows of the segment). */
  readonly onColumns?: ((layer: number, columns: Float32Array) => void) | undefined;
}

/** @throws SparseVilaError `ERR_INTERNAL` for segments that do not add up to the rows of x, or that share a cache */
export function checkBatch(x: Tensor, batch: readonly Segment[]): void {
  const rows = batch.reduce((sum, { positions }) => sum + positions.length, 0);
  const isEach = batch.every(({ positions }) => positions.length > 0);
  if (isEach && rows === x.shape[0] && new Set(batch.map(({ cache }) => cache)).size === batch.length) return;
  throw new SparseVilaError(
    'ERR_INTERNAL',
    `Expected segments of at least one row, each with a cache of its own, for the ${x.shape[0]} rows of x; received ${batch.length} of ${rows} rows.`,
  );
}

/** The inputs that the calls for all layers share: the segment of each row, and the rows that it attends in each layer. */
export function sharedInputs(batch: readonly Segment[], layers: number): RaggedRows {
  const ranges: number[] = [];
  for (let layer = 0; layer < layers; layer++)
    for (const { cache, views, onColumns } of batch)
      ranges.push(views?.[layer]?.tail ?? 0, cache.lengths[layer] as number, onColumns === undefined ? 0 : 1);
  return {
    segments: int32(batch.map((segment) => segment.positions.length)),
    ranges: int32(ranges),
    spans: spansOf(batch, layers),
  };
}

/** int32 [layers, t, 2]: the span of each row in each layer; undefined if all rows attend everything up to themselves. */
function spansOf(batch: readonly Segment[], layers: number): Tensor | undefined {
  if (!batch.some(({ spans }) => spans?.some((span) => span !== undefined))) return undefined;
  const t = batch.reduce((sum, { positions }) => sum + positions.length, 0);
  const values: number[] = [];
  for (let layer = 0; layer < layers; layer++)
    for (const { cache, positions, views, spans } of batch) {
      const { rows = undefined, tail = 0 } = views?.[layer] ?? {};
      const before = (rows?.size ?? 0) + (cache.lengths[layer] as number) - tail;
      const span = spans?.[layer];
      for (let i = 0; i < positions.length; i++)
        values.push(span?.[2 * i] ?? 0, span === undefined ? before + i + 1 : (span[2 * i + 1] as number));
    }
  return int32(values, [layers, t, 2]);
}

/** Reads the columns of one layer and passes each segment its part. */
export function giveColumns(batch: readonly Segment[], layer: number, columns: Tensor): void {
  if (batch.every(({ onColumns }) => onColumns === undefined)) return;
  const values = floats(columns);
  let at = 0;
  for (const { cache, positions, views, onColumns } of batch) {
    if (onColumns === undefined) continue;
    const { rows = undefined, tail = 0 } = views?.[layer] ?? {};
    const count = (rows?.size ?? 0) + (cache.lengths[layer] as number) - tail + positions.length;
    onColumns(layer, values.subarray(at, at + count));
    at += count;
  }
}
