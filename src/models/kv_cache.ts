// The KV cache of one sequence: one tensor per layer, which grows with its rows. Does not know what a layer computes.

import { SparseVilaError } from '../errors';
import { allocKv, checkKvMemory, copyKv, type KvType, keepKvRows, kvBytes } from '../ops/kv_cache';
import type { Position } from '../ops/rope';
import type { Tensor } from '../runtime/tensor';
import { type DecoderConfig, hasWindows } from './config';

/** Layers from .. to - 1. */
export interface LayerRange {
  readonly from: number;
  readonly to: number;
}

export interface KvCache {
  /** Number of rows in each layer. Where a method drops rows between layers, deeper layers hold fewer. */
  readonly lengths: readonly number[];
  /** Maximum number of rows of a layer. */
  readonly limit: number;
  /** Bytes that its tensors take. */
  readonly bytes: number;
  /** The tensor of a layer, as `allocKv` makes it. `reserve` and `truncate` replace it. The caller must not dispose of it. */
  tensor(layer: number): Tensor;
  /**
   * Reserves room for that many more rows in all layers or in some.
   * @throws SparseVilaError `ERR_CONTEXT_OVERFLOW` beyond the limit, `ERR_OUT_OF_MEMORY`
   */
  reserve(rows: number, layers?: LayerRange): void;
  /** Counts rows that an op wrote after the others, into reserved room; their positions, or their number if no layer has a window. */
  extend(rows: ArrayLike<Position> | number, layers?: LayerRange): void;
  /** The positions of a layer's rows, in their order; empty unless a layer of the model has a window. */
  positions(layer: number): readonly number[];
  /** Removes the rows at and after these lengths. A cache without rows takes no memory. */
  truncate(lengths: readonly number[]): void;
  /** Removes rows of a layer from `begin` on, except begin + rows[i] (ascending), which move together. */
  keep(layer: number, begin: number, rows: Int32Array): void;
  /** An independent cache with a copy of the rows, or of the first ones of each layer. */
  fork(lengths?: readonly number[]): KvCache;
  /** Frees the memory; the cache is empty afterwards. */
  dispose(): void;
}

/** Capacities are multiples of this number of rows. */
const STEP = 256;
/** Minimum factor by which a tensor grows, so that appending takes amortized constant time per row. */
const GROWTH = 1.5;

interface Sizes {
  readonly kvHeads: number;
  readonly headDim: number;
  readonly type: KvType;
  readonly limit: number;
  readonly hasWindows: boolean;
}

/**
 * An empty cache, which takes no memory until rows are reserved.
 * @param limit the maximum number of rows of a layer
 * @throws SparseVilaError `ERR_OUT_OF_MEMORY` if a layer of that many rows exceeds the machine's memory
 */
export function kvCache(
  config: Pick<DecoderConfig, 'layers' | 'kvHeads' | 'headDim' | 'layerTypes'>,
  type: KvType,
  limit: number,
): KvCache {
  const { layers, kvHeads, headDim } = config;
  checkKvMemory(kvHeads, limit, headDim, type);
  const none = Array.from({ length: layers }, () => undefined);
  const positions = none.map((): number[] => []);
  const sizes = { kvHeads, headDim, type, limit, hasWindows: hasWindows(config) };
  return cacheOf(sizes, new Array<number>(layers).fill(0), none, positions);
}

/** A cache that owns these tensors. */
function cacheOf(sizes: Sizes, lengths: number[], tensors: (Tensor | undefined)[], positions: number[][]): KvCache {
  const { kvHeads, headDim, type, limit } = sizes;
  const all: LayerRange = { from: 0, to: lengths.length };
  const lengthOf = (layer: number): number => lengths[layer] as number;
  const capacityOf = (layer: number): number => tensors[layer]?.shape[2] ?? 0;
  const put = (layer: number, tensor: Tensor | undefined): void => {
    tensors[layer]?.dispose();
    tensors[layer] = tensor;
  };
  const copied = (layer: number, capacity: number, rows = lengthOf(layer)): Tensor => {
    const old = tensors[layer];
    const isEmpty = old === undefined || rows === 0;
    return isEmpty ? allocKv(kvHeads, capacity, headDim, type) : copyKv(old, rows, capacity, headDim);
  };
  const reserve = (rows: number, { from, to }: LayerRange = all): void => {
    for (let layer = from; layer < to; layer++) {
      const needed = lengthOf(layer) + rows;
      const capacity = capacityOf(layer);
      if (needed <= capacity) continue;
      if (needed > limit) throw overflow(needed, limit);
      put(layer, copied(layer, Math.min(limit, upToStep(Math.max(needed, capacity * GROWTH)))));
    }
  };
  const truncate = (to: readonly number[]): void => {
    for (const layer of lengths.keys()) {
      lengths[layer] = Math.min(to[layer] ?? 0, lengthOf(layer));
      if (sizes.hasWindows) (positions[layer] as number[]).length = lengthOf(layer);
    }
    if (lengths.every((length) => length === 0)) for (const layer of lengths.keys()) put(layer, undefined);
  };
  return {
    lengths,
    limit,
    get bytes() {
      return lengths.reduce((sum, _, layer) => sum + kvBytes(kvHeads, capacityOf(layer), headDim, type), 0);
    },
    tensor(layer) {
      if (tensors[layer] === undefined) reserve(1, { from: layer, to: layer + 1 });
      return tensors[layer] as Tensor;
    },
    reserve,
    extend(rows, { from, to } = all) {
      const added = typeof rows === 'number' ? rows : rows.length;
      for (let layer = from; layer < to; layer++) {
        lengths[layer] = lengthOf(layer) + added;
        if (sizes.hasWindows) for (const position of timesOf(rows)) positions[layer]?.push(position);
      }
    },
    positions: (layer) => positions[layer] ?? [],
    truncate,
    keep(layer, begin, rows) {
      keepKvRows(tensors[layer] as Tensor, { begin, end: lengthOf(layer), c: headDim }, rows);
      lengths[layer] = begin + rows.length;
      if (!sizes.hasWindows) return;
      const own = positions[layer] as number[];
      const kept = Array.from(rows, (row) => own[begin + row] as number);
      own.length = begin;
      for (const position of kept) own.push(position);
    },
    fork(to = lengths) {
      const own = lengths.map((length, layer) => Math.min(length, to[layer] ?? 0));
      const copies: (Tensor | undefined)[] = [];
      try {
        for (const [layer, length] of own.entries())
          copies.push(length === 0 ? undefined : copied(layer, Math.min(limit, upToStep(length)), length));
      } catch (error) {
        for (const copy of copies) copy?.dispose();
        throw error;
      }
      return cacheOf(
        sizes,
        own,
        copies,
        positions.map((all, layer) => all.slice(0, own[layer])),
      );
    },
    dispose: () => truncate([]),
  };
}

/** Positions on the axis of time. @throws SparseVilaError `ERR_INTERNAL` for a number of rows alone */
function timesOf(rows: ArrayLike<Position> | number): number[] {
  if (typeof rows !== 'number')
    return Array.from(rows, (position) => (typeof position === 'number' ? position : position[0]));
  throw new SparseVilaError('ERR_INTERNAL', 'Expected the positions of rows, since some layers have windows.');
}

const upToStep = (rows: number): number => Math.ceil(rows / STEP) * STEP;

function overflow(needed: number, limit: number): SparseVilaError {
  return new SparseVilaError(
    'ERR_CONTEXT_OVERFLOW',
    `Expected at most ${limit} rows in a KV cache, received ${needed}. Rewind, open a new session, or raise contextLength.`,
  );
}
