// The segments of a batch: whose rows they are, what these attend, and how that enters the calls of the decoder layers.

import { SparseVilaError } from '../errors';
import type { RaggedRows } from '../ops/decoder_layer';
import type { Position } from '../ops/rope';
import { floats, int32 } from '../ops/run';
import type { Tensor } from '../runtime/tensor';
import { type DecoderConfig, hasWindows, isStateLayer, windowOf } from './config';
import type { KvCache } from './kv_cache';

/** The rows of a layer's tensor that it attends, besides the contiguous tail. */
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
  /** One view per layer, or undefined where all rows are attended. A layer with a window has none. */
  readonly views?: readonly (LayerView | undefined)[] | undefined;
  /**
   * The blocks of rows that attend each other: row i attends the rows of the segment before `ends[i]`, and, in a bidirectional prompt,
   * from the block's first row on whatever the window. `ends[i]` is at least i + 1. Absent: none but those up to their own.
   */
  readonly ends?: Int32Array | undefined;
  /**
   * One per layer, or absent: int32 [rows of the segment, 2] (from, to): row i attends from .. to - 1 of the layer's rows instead of all up
   * to its own. Rows are counted in the order of attention: those of the view, then the contiguous tail, new ones included.
   */
  readonly spans?: readonly (Int32Array | undefined)[] | undefined;
  /** Receives, per layer that is no state layer, the column mean over all rows that the layer attends (mean over heads and the rated rows of the segment). */
  readonly onColumns?: ((layer: number, columns: Float32Array) => void) | undefined;
  /** How many of the segment's last rows are rated; absent: all of them. */
  readonly rated?: number | undefined;
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
export function sharedInputs(batch: readonly Segment[], config: DecoderConfig): RaggedRows {
  const ranges: number[] = [];
  for (let layer = 0; layer < config.layers; layer++)
    for (const { cache, views, onColumns, rated } of batch)
      ranges.push(
        views?.[layer]?.tail ?? 0,
        cache.held[layer] as number,
        isStateLayer(config, layer) ? 0 : columnsCode(onColumns, rated),
      );
  return {
    segments: int32(batch.map((segment) => segment.positions.length)),
    ranges: int32(ranges),
    spans: spansOf(batch, config),
  };
}

function columnsCode(onColumns: Segment['onColumns'], rated: number | undefined): number {
  if (onColumns === undefined) return 0;
  return rated === undefined ? 1 : -rated;
}

/** int32 [layers, t, 2]: the span of each row in each layer; undefined if all rows attend everything up to themselves. */
function spansOf(batch: readonly Segment[], config: DecoderConfig): Tensor | undefined {
  if (!hasWindows(config) && batch.every(({ spans, ends }) => spans === undefined && ends === undefined))
    return undefined;
  const { layers } = config;
  const given = Array.from({ length: layers }, (_, layer) =>
    batch.map((segment) => layerSpans(segment, layer, config)),
  );
  if (!given.some((own) => own.some((spans) => spans !== undefined))) return undefined;
  const t = batch.reduce((sum, { positions }) => sum + positions.length, 0);
  const values = new Int32Array(2 * layers * t);
  let at = 0;
  for (const [layer, own] of given.entries())
    for (const [i, segment] of batch.entries()) {
      const rows = segment.positions.length;
      values.set(own[i] ?? causalSpans(rowsBefore(segment, layer), rows), at);
      at += 2 * rows;
    }
  return int32(values, [layers, t, 2]);
}

/** Number of rows that a layer attends before the segment's own. */
function rowsBefore({ cache, views }: Segment, layer: number): number {
  const { rows = undefined, tail = 0 } = views?.[layer] ?? {};
  return (rows?.size ?? 0) + (cache.held[layer] as number) - tail;
}

function causalSpans(before: number, rows: number): Int32Array {
  return Int32Array.from({ length: 2 * rows }, (_, i) => (i % 2 === 0 ? 0 : before + (i + 1) / 2));
}

/** int32 [rows, 2]: the spans of a segment's rows in a layer; undefined if each attends everything up to itself. */
function layerSpans(segment: Segment, layer: number, config: DecoderConfig): Int32Array | undefined {
  const { positions, ends, spans, cache } = segment;
  if (spans?.[layer] !== undefined) return spans[layer];
  return rowSpans(config, layer, {
    before: rowsBefore(segment, layer),
    earlier: cache.positions(layer),
    positions,
    ends,
  });
}

/** Rows of which a layer's attention is asked. */
interface AttendedRows {
  /** Number of rows that are attended before these, and, if the layer has a window, their positions. */
  readonly before: number;
  readonly earlier: readonly number[];
  readonly positions: ArrayLike<Position>;
  /** As `Segment.ends`. */
  readonly ends?: Int32Array | undefined;
}

/** int32 [rows, 2]: what the rows attend in a layer, by its window and their blocks; undefined if each attends everything up to itself. */
export function rowSpans(
  config: DecoderConfig,
  layer: number,
  { before, earlier, positions, ends }: AttendedRows,
): Int32Array | undefined {
  const window = windowOf(config, layer);
  if (window === undefined && ends === undefined) return undefined;
  const own = causalSpans(before, positions.length);
  if (window !== undefined) limitSpans(own, earlier, positions, window);
  let first = 0;
  for (const [i, end] of (ends ?? []).entries()) {
    own[2 * i + 1] = before + end;
    // Rows of a block share its end.
    if (ends?.[i - 1] !== end) first = i;
    if (config.bidirectional === 'prompt') own[2 * i] = Math.min(own[2 * i] as number, before + first);
  }
  const isCausal = own.every((value, i) => value === (i % 2 === 0 ? 0 : before + (i + 1) / 2));
  return isCausal ? undefined : own;
}

/** Raises the beginnings of spans to the first row that is less than `window` positions away. Positions ascend. */
function limitSpans(
  spans: Int32Array,
  earlier: readonly number[],
  positions: ArrayLike<Position>,
  window: number,
): void {
  const at = (row: number): number =>
    row < earlier.length ? (earlier[row] as number) : (positions[row - earlier.length] as number);
  let from = firstAbove(earlier, (positions[0] as number) - window);
  for (let i = 0; i < positions.length; i++) {
    while (at(from) <= (positions[i] as number) - window) from++;
    spans[2 * i] = from;
  }
}

/** The index of the first of ascending numbers above a bound. */
function firstAbove(ascending: readonly number[], bound: number): number {
  let [low, high] = [0, ascending.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ascending[middle] as number) > bound) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** For `look`: int32 [layers, rows, 2], the window of each row in one layer; undefined if it has none. */
export function windowSpans(
  config: DecoderConfig,
  layer: number,
  earlier: readonly number[],
  positions: ArrayLike<Position>,
): Tensor | undefined {
  if (windowOf(config, layer) === undefined) return undefined;
  const rows = { before: earlier.length, earlier, positions };
  const own = rowSpans(config, layer, rows) ?? causalSpans(earlier.length, positions.length);
  const values = new Int32Array(config.layers * own.length);
  values.set(own, layer * own.length);
  return int32(values, [config.layers, positions.length, 2]);
}

/** Reads the columns of one layer and passes each segment its part; a state layer has none. */
export function giveColumns(batch: readonly Segment[], layer: number, columns: Tensor): void {
  if (columns.size === 0 || batch.every(({ onColumns }) => onColumns === undefined)) return;
  const values = floats(columns);
  let at = 0;
  for (const segment of batch) {
    const { positions, onColumns } = segment;
    if (onColumns === undefined) continue;
    const count = rowsBefore(segment, layer) + positions.length;
    onColumns(layer, values.subarray(at, at + count));
    at += count;
  }
}
