// The states of the state layers of one sequence, and copies of them at points of it. A state cannot lose rows, so that going back to a point
// needs a copy that was made there. Knows no conversation: a point is a number that the caller gives.

import { SparseVilaError } from '../errors';
import { allocState, copyState, type DeltaSizes, stateBytes } from '../ops/delta';
import type { Tensor } from '../runtime/tensor';

export interface States {
  /** Whether a layer keeps a state. */
  has(layer: number): boolean;
  /** Whether any layer does. */
  readonly isAny: boolean;
  /** Bytes of the states and of all copies. */
  readonly bytes: number;
  /** The points with copies, ascending. */
  readonly points: readonly number[];
  /**
   * The state of a layer, for a call that changes it; `changed` has to follow.
   * @throws SparseVilaError `ERR_INTERNAL` if an earlier call did not end: the state holds rows that nothing counts
   */
  tensor(layer: number): Tensor;
  /** A call has ended. */
  changed(layer: number): void;
  /** Copies the states of some layers to a point. @throws SparseVilaError `ERR_OUT_OF_MEMORY` */
  save(point: number, layers: readonly number[]): void;
  /** Whether a layer has a state other than that of a point with `rows` rows; `length`: rows that are counted now. */
  differs(layer: number, length: number, rows: number): boolean;
  /** Goes back to the copy at a point; without rows there is no state. @throws SparseVilaError `ERR_INTERNAL` without a copy */
  restore(layer: number, point: number | undefined, rows: number): void;
  /** A layer's state, now or at a point, to be read only; undefined where there is none. */
  at(layer: number, point?: number): Tensor | undefined;
  /** Replaces a layer's state, now or at a point, and owns the new one. */
  put(layer: number, state: Tensor, point?: number): void;
  /** Frees copies. */
  forget(isGone: (point: number) => boolean): void;
  /**
   * Independent states: those saved at a point for layers of these numbers of rows, with the copies of the last point up to it; or the present
   * ones, with the copies of the last two points: the last one may be the present, and a sequence goes back to the one before.
   */
  fork(point: number | undefined, rows: readonly number[]): States;
}

type Layers = (Tensor | undefined)[];

export function noStates(): States {
  return statesOf(undefined, [], new Map());
}

/** No rows yet, and no memory. `isState[layer]`: whether the layer keeps a state. */
export function freshStates(sizes: DeltaSizes, isState: readonly boolean[]): States {
  return statesOf({ sizes, isState }, [], new Map());
}

function statesOf(
  kind: { readonly sizes: DeltaSizes; readonly isState: readonly boolean[] } | undefined,
  live: Layers,
  saved: Map<number, Layers>,
): States {
  const inCall = new Set<number>();
  const put = (layers: Layers, layer: number, tensor: Tensor | undefined): void => {
    layers[layer]?.dispose();
    layers[layer] = tensor;
  };
  const count = (layers: Layers): number => layers.filter((tensor) => tensor !== undefined).length;
  const points = (): number[] => [...saved.keys()].sort((a, b) => a - b);
  return {
    has: (layer) => kind?.isState[layer] === true,
    isAny: kind?.isState.includes(true) === true,
    get bytes() {
      const all = [live, ...saved.values()].reduce((sum, layers) => sum + count(layers), 0);
      return kind === undefined ? 0 : all * stateBytes(kind.sizes);
    },
    get points() {
      return points();
    },
    tensor(layer) {
      if (inCall.has(layer)) throw halfChanged(layer);
      live[layer] ??= allocState((kind as NonNullable<typeof kind>).sizes);
      inCall.add(layer);
      return live[layer];
    },
    changed: (layer) => inCall.delete(layer),
    save(point, layers) {
      const copies = saved.get(point) ?? [];
      saved.set(point, copies);
      for (const layer of layers) {
        const state = live[layer];
        if (state !== undefined) put(copies, layer, copyState(state));
      }
    },
    differs: (layer, length, rows) => inCall.has(layer) || length !== rows,
    restore(layer, point, rows) {
      const copy = point === undefined ? undefined : saved.get(point)?.[layer];
      if (rows > 0 && copy === undefined) throw noCopy(layer, rows);
      put(live, layer, rows === 0 || copy === undefined ? undefined : copyState(copy));
      inCall.delete(layer);
    },
    at: (layer, point) => (point === undefined ? live : saved.get(point))?.[layer],
    put(layer, state, point) {
      if (point === undefined) return put(live, layer, state);
      const copies = saved.get(point) ?? [];
      saved.set(point, copies);
      put(copies, layer, state);
    },
    forget(isGone) {
      for (const [point, layers] of saved) {
        if (!isGone(point)) continue;
        for (const tensor of layers) tensor?.dispose();
        saved.delete(point);
      }
    },
    fork(point, rows) {
      const made: Layers[] = [];
      const copied = (layers: Layers): Layers => {
        const copies: Layers = [];
        made.push(copies);
        for (const [layer, tensor] of layers.entries()) if (tensor !== undefined) copies[layer] = copyState(tensor);
        return copies;
      };
      const from = point === undefined ? live : (saved.get(point) ?? []);
      const lacking = (kind?.isState ?? []).findIndex((is, at) => is && (rows[at] ?? 0) > 0 && from[at] === undefined);
      if (lacking >= 0) throw noCopy(lacking, rows[lacking] ?? 0);
      const before = points().filter((one) => point === undefined || one <= point);
      const last = before.slice(point === undefined ? -2 : -1);
      try {
        const own = copied(from);
        return statesOf(kind, own, new Map(last.map((one) => [one, copied(saved.get(one) ?? [])])));
      } catch (error) {
        for (const copies of made) for (const tensor of copies) tensor?.dispose();
        throw error;
      }
    },
  };
}

function halfChanged(layer: number): SparseVilaError {
  return new SparseVilaError(
    'ERR_INTERNAL',
    `Expected the state of layer ${layer} to be whole, but a call that changed it has failed. Go back to a saved point first.`,
  );
}

function noCopy(layer: number, rows: number): SparseVilaError {
  return new SparseVilaError(
    'ERR_INTERNAL',
    `Expected a copy of the state of layer ${layer} after ${rows} rows, found none: a state cannot lose rows. Save the point before.`,
  );
}
