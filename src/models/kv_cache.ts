// The KV cache of one sequence: one tensor per layer, which grows with its rows, or a state of fixed size. Does not know what a layer computes.

import { SparseVilaError } from '../errors';
import { stateBytes } from '../ops/delta';
import { allocKv, checkKvMemory, copyKv, type KvType, keepKvRows, kvBytes } from '../ops/kv_cache';
import type { Position } from '../ops/rope';
import type { Tensor } from '../runtime/tensor';
import { type DecoderConfig, hasWindows, isStateLayer } from './config';
import { freshStates, noStates, type States } from './states';

/** Layers from .. to - 1. */
export interface LayerRange {
  readonly from: number;
  readonly to: number;
}

/** Cache rows that a layer attends, ascending, before the contiguous tail. */
export interface AttendedRows {
  readonly rows: readonly number[];
  /** First row of the tail. */
  readonly tail: number;
}

export interface KvCache {
  /** Number of rows in each layer. Where a method drops rows between layers, deeper layers hold fewer. */
  readonly lengths: readonly number[];
  /** Number of rows in each layer's tensor: all of them, unless a host tier holds some. */
  readonly held: readonly number[];
  /** Whether rows may lie on the host: every call of a layer that attends all rows then needs a view that `locate` gave. */
  readonly isTiered: boolean;
  /**
   * Brings these rows of a layer into its tensor, where they are not, and returns where they stand in it. Valid until the next call for the layer.
   * @param room rows that will be added to the tail
   * @throws SparseVilaError `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`, `ERR_FILE_UNREADABLE`, `ERR_OUT_OF_MEMORY`; no row is lost
   */
  locate(layer: number, view: AttendedRows, room?: number): AttendedRows;
  /** Where a row stands in its tensor. @throws SparseVilaError `ERR_INTERNAL` for a row on the host */
  at(layer: number, row: number): number;
  /** Maximum number of rows of a layer. */
  readonly limit: number;
  /** Bytes that its tensors take. */
  readonly bytes: number;
  /**
   * The tensor of a layer, as `allocKv` makes it; of a state layer its state, for a call that changes it and that `extend` follows. `reserve` and
   * `truncate` replace it. The caller must not dispose of it.
   */
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
  /**
   * Removes the rows at and after these lengths. A cache without rows takes no memory. Where states have seen more rows, or a call that
   * changes them has failed, they become those that were saved at `point`; where they were not, this throws.
   */
  truncate(lengths: readonly number[], point?: number): void;
  /** Whether some layers keep states, which `truncate` can only return to saved points, or to no rows. */
  readonly hasStates: boolean;
  /** The points at which states are saved, ascending. */
  readonly points: readonly number[];
  /** Copies the states of all layers or of some, so that `truncate` can return to them. @throws SparseVilaError `ERR_OUT_OF_MEMORY` */
  save(point: number, layers?: LayerRange): void;
  /** A layer's state, now or as it was saved at a point, to be read only; undefined where there is none. */
  stateAt(layer: number, point?: number): Tensor | undefined;
  /** Replaces a layer's state, now or at a point, and owns the new one. `extend` counts its rows. */
  putState(layer: number, state: Tensor, point?: number): void;
  /** Frees what was saved at points. */
  forget(isGone: (point: number) => boolean): void;
  /** Removes rows of a layer from `begin` on, except begin + rows[i] (ascending), which move together. */
  keep(layer: number, begin: number, rows: Int32Array): void;
  /**
   * An independent cache with a copy of the rows, or of the first ones of each layer; with states where they were saved at `point`, as `truncate`.
   * `room` more rows fit without growing, that is, without a second copy.
   */
  fork(lengths?: readonly number[], point?: number, room?: number): KvCache;
  /** Frees the memory; the cache is empty afterwards. */
  dispose(): void;
}

/** Capacities are multiples of this number of rows. */
const STEP = 256;
/** Minimum factor by which a tensor grows, so that appending takes amortized constant time per row. */
const GROWTH = 1.5;

type Shape = Pick<DecoderConfig, 'layers' | 'kvHeads' | 'headDim' | 'layerTypes' | 'delta'>;

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
export function kvCache(config: Shape, type: KvType, limit: number): KvCache {
  const { layers, kvHeads, headDim } = config;
  checkKvMemory(kvHeads, limit, headDim, type);
  const none = Array.from({ length: layers }, () => undefined);
  const positions = none.map((): number[] => []);
  const sizes = { kvHeads, headDim, type, limit, hasWindows: hasWindows(config) };
  return cacheOf(sizes, new Array<number>(layers).fill(0), none, positions, statesFor(config));
}

function statesFor(config: Shape): States {
  const isState = Array.from({ length: config.layers }, (_, layer) => isStateLayer(config, layer));
  return config.delta === undefined ? noStates() : freshStates(config.delta, isState);
}

/** A cache that owns these tensors. */
function cacheOf(
  sizes: Sizes,
  lengths: number[],
  tensors: (Tensor | undefined)[],
  positions: number[][],
  states: States,
): KvCache {
  const { kvHeads, headDim, type, limit } = sizes;
  const all: LayerRange = { from: 0, to: lengths.length };
  const lengthOf = (layer: number): number => lengths[layer] as number;
  const capacityOf = (layer: number): number => tensors[layer]?.shape[2] ?? 0;
  const put = (layer: number, tensor: Tensor | undefined): void => {
    tensors[layer]?.dispose();
    tensors[layer] = tensor;
  };
  const grown = (layer: number, capacity: number, rows = lengthOf(layer)): Tensor => {
    const old = tensors[layer];
    const isEmpty = old === undefined || rows === 0;
    return isEmpty ? allocKv(kvHeads, capacity, headDim, type) : copyKv(old, rows, capacity, headDim);
  };
  const reserve = (rows: number, { from, to }: LayerRange = all): void => {
    for (let layer = from; layer < to; layer++) {
      const needed = lengthOf(layer) + rows;
      const capacity = capacityOf(layer);
      if (needed > limit) throw overflow(needed, limit);
      if (states.has(layer) || needed <= capacity) continue;
      put(layer, grown(layer, Math.min(limit, upToStep(Math.max(needed, capacity * GROWTH)))));
    }
  };
  const truncate = (to: readonly number[], point?: number): void => {
    for (const layer of lengths.keys()) {
      const rows = Math.min(to[layer] ?? 0, lengthOf(layer));
      if (states.has(layer) && states.differs(layer, lengthOf(layer), rows)) states.restore(layer, point, rows);
      lengths[layer] = rows;
      if (sizes.hasWindows) (positions[layer] as number[]).length = lengthOf(layer);
    }
    if (lengths.every((length) => length === 0)) for (const layer of lengths.keys()) put(layer, undefined);
  };
  return {
    ...{ lengths, held: lengths, isTiered: false, limit },
    locate: (_, view) => view,
    at: (_, row) => row,
    get bytes() {
      const rows = lengths.reduce((sum, _, layer) => sum + kvBytes(kvHeads, capacityOf(layer), headDim, type), 0);
      return rows + states.bytes;
    },
    hasStates: states.isAny,
    get points() {
      return states.points;
    },
    save(point, { from, to } = all) {
      states.save(point, Array.from({ length: to - from }, (_, i) => from + i).filter(states.has));
    },
    ...{ forget: states.forget, stateAt: states.at, putState: states.put },
    tensor(layer) {
      if (states.has(layer)) return states.tensor(layer);
      if (tensors[layer] === undefined) reserve(1, { from: layer, to: layer + 1 });
      return tensors[layer] as Tensor;
    },
    reserve,
    extend(rows, { from, to } = all) {
      const added = typeof rows === 'number' ? rows : rows.length;
      for (let layer = from; layer < to; layer++) {
        lengths[layer] = lengthOf(layer) + added;
        states.changed(layer);
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
    fork(to = lengths, point, room = 0) {
      const own = lengths.map((length, layer) => Math.min(length, to[layer] ?? 0));
      const isWhole = own.every((length, layer) => !states.has(layer) || length === lengthOf(layer));
      const copies: (Tensor | undefined)[] = [];
      let copied: States;
      try {
        for (const [layer, length] of own.entries())
          copies.push(
            length === 0 || states.has(layer)
              ? undefined
              : grown(layer, Math.min(limit, upToStep(length + room)), length),
          );
        copied = states.fork(isWhole ? undefined : point, own);
      } catch (error) {
        for (const copy of copies) copy?.dispose();
        throw error;
      }
      return cacheOf(
        sizes,
        own,
        copies,
        positions.map((all, layer) => all.slice(0, own[layer])),
        copied,
      );
    },
    dispose: () => {
      truncate([]);
      // Also those that were put and whose rows nobody has counted.
      for (const layer of lengths.keys()) if (states.has(layer)) states.restore(layer, undefined, 0);
      states.forget(() => true);
    },
  };
}

/** Positions on the axis of time. @throws SparseVilaError `ERR_INTERNAL` for a number of rows alone */
function timesOf(rows: ArrayLike<Position> | number): number[] {
  if (typeof rows !== 'number')
    return Array.from(rows, (position) => (typeof position === 'number' ? position : position[0]));
  throw new SparseVilaError('ERR_INTERNAL', 'Expected the positions of rows, since some layers have windows.');
}

/** Bytes of cache for a row, in all layers that keep keys and values. */
export function rowBytes(
  config: Pick<DecoderConfig, 'layers' | 'kvHeads' | 'headDim' | 'layerTypes'>,
  type: KvType,
): number {
  return (config.layers - stateLayers(config)) * kvBytes(config.kvHeads, 1, config.headDim, type);
}

/** Bytes of the states of one sequence, however many rows it has; 0 without state layers. Each copy at a point takes as many. */
export function allStateBytes(config: Pick<DecoderConfig, 'layers' | 'layerTypes' | 'delta'>): number {
  return config.delta === undefined ? 0 : stateLayers(config) * stateBytes(config.delta);
}

const stateLayers = (config: Pick<DecoderConfig, 'layers' | 'layerTypes'>): number =>
  Array.from({ length: config.layers }).filter((_, layer) => isStateLayer(config, layer)).length;

const upToStep = (rows: number): number => Math.ceil(rows / STEP) * STEP;

export function overflow(needed: number, limit: number): SparseVilaError {
  return new SparseVilaError(
    'ERR_CONTEXT_OVERFLOW',
    `Expected at most ${limit} rows in a KV cache, received ${needed}. Rewind, open a new session, or raise contextLength.`,
  );
}
