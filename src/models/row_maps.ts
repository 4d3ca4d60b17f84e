// Row maps: constructors, and their application to tensors and to numbers. Dropping the class row, space-to-depth, tiles, average and area
// pooling are all row maps, and salience and keys go through the same map as the features.

import { float32, int32 } from '../ops/run';
import { start } from '../runtime/start';
import type { Tensor } from '../runtime/tensor';
import type { RowMap } from './media';

/** Selects the listed rows, unchanged. */
export function selectRows(from: ArrayLike<number>): RowMap {
  return { rows: from.length, parts: 1, taps: 1, from: Int32Array.from(from) };
}

/**
 * Space to depth: the k × k blocks of an h × w raster; a block concatenates its rows in raster order, with zeros beyond the edges.
 * `at(row, col)` is the input row of a raster cell; by default the index in the raster.
 */
export function blockRows(
  h: number,
  w: number,
  k: number,
  at: (row: number, col: number) => number = (row, col) => row * w + col,
): RowMap {
  const [rows, cols] = [Math.ceil(h / k), Math.ceil(w / k)];
  const from = new Int32Array(rows * cols * k * k);
  for (let i = 0; i < from.length; i++) {
    const [token, part] = [Math.floor(i / (k * k)), i % (k * k)];
    const row = Math.floor(token / cols) * k + Math.floor(part / k);
    const col = (token % cols) * k + (part % k);
    from[i] = row < h && col < w ? at(row, col) : -1;
  }
  return { rows: rows * cols, parts: k * k, taps: 1, from };
}

/** The means of the k × k blocks of `planes` rasters of h × w rows, which k divides, plane after plane. */
export function meanRows(planes: number, h: number, w: number, k: number): RowMap {
  const [rows, cols, taps] = [h / k, w / k, k * k];
  const from = Int32Array.from({ length: planes * h * w }, (_, i) => {
    const [token, tap] = [Math.floor(i / taps), i % taps];
    const [plane, row, col] = [Math.floor(token / (rows * cols)), Math.floor(token / cols) % rows, token % cols];
    return (plane * h + row * k + Math.floor(tap / k)) * w + col * k + (tap % k);
  });
  const weights = new Float32Array(from.length).fill(1 / taps);
  return { rows: planes * rows * cols, parts: 1, taps, from, weights };
}

/**
 * Area averaging along one axis: for each of `to` outputs, the range of the `from` inputs whose mean it is.
 * Source: torch `adaptive_avg_pool`, from floor(i · from / to) to ceil((i + 1) · from / to).
 */
export function areaTaps(from: number, to: number): number[][] {
  return Array.from({ length: to }, (_, i) => {
    const begin = Math.floor((i * from) / to);
    const end = Math.ceil(((i + 1) * from) / to);
    return Array.from({ length: end - begin }, (_, k) => begin + k);
  });
}

/**
 * Bilinear resampling of planes of h × w rows to planes of another size, after `first` unchanged rows. No antialiasing.
 * Source: torch `interpolate`, bilinear, align_corners false.
 */
export function bilinearRows(
  { t, h, w }: { readonly t: number; readonly h: number; readonly w: number },
  to: { readonly h: number; readonly w: number },
  first = 0,
): RowMap {
  const [down, across] = [bilinearTaps(h, to.h), bilinearTaps(w, to.w)];
  const from: number[] = [];
  const weights: number[] = [];
  for (let row = 0; row < first; row++) {
    from.push(row, -1, -1, -1);
    weights.push(1, 0, 0, 0);
  }
  for (let plane = 0; plane < t; plane++)
    for (const y of down)
      for (const x of across) {
        const at = (row: number, col: number): number => first + (plane * h + row) * w + col;
        from.push(at(y.near, x.near), at(y.near, x.far), at(y.far, x.near), at(y.far, x.far));
        weights.push(
          (1 - y.share) * (1 - x.share),
          (1 - y.share) * x.share,
          y.share * (1 - x.share),
          y.share * x.share,
        );
      }
  return { rows: from.length / 4, parts: 1, taps: 4, from: Int32Array.from(from), weights: Float32Array.from(weights) };
}

/** For each of `to` outputs, its two neighbors among `from` inputs, and the weight of the farther one. */
function bilinearTaps(
  from: number,
  to: number,
): { readonly near: number; readonly far: number; readonly share: number }[] {
  return Array.from({ length: to }, (_, i) => {
    const center = Math.max(0, (from / to) * (i + 0.5) - 0.5);
    const near = Math.floor(center);
    return { near, far: Math.min(near + 1, from - 1), share: center - near };
  });
}

/**
 * Bilinear resampling of a square table of `side` × `side` rows to a grid of cells, the corners of both aligned: four taps each, in f32 as in
 * torch. Source: transformers 5.24 `get_vision_interpolation_indices_and_weights`.
 * @param cells int32 [n, 3]: anything, row and column of each output
 * @param ends the last row and column of the grid; absent: those of the cells
 */
export function resampledRows(cells: Int32Array, side: number, ends?: Int32Array): RowMap {
  const rows = cells.length / 3;
  const axisOf = (which: 1 | 2): [first: number, second: number, weights: readonly [number, number]][] => {
    const own = Array.from({ length: rows }, (_, i) => cells[3 * i + which] as number);
    const last = ends?.[which - 1] ?? own.reduce((most, cell) => Math.max(most, cell), 0);
    return own.map((cell) => {
      const at = Math.fround((cell * (side - 1)) / Math.max(1, last));
      const floor = Math.floor(at);
      const far = Math.fround(at - floor);
      const clamped = (tap: number): number => Math.min(side - 1, tap);
      return [clamped(floor), clamped(floor + 1), [Math.fround(1 - far), Math.fround(1 - Math.fround(1 - far))]];
    });
  };
  const [down, across] = [axisOf(1), axisOf(2)];
  const from = new Int32Array(4 * rows);
  const weights = new Float32Array(4 * rows);
  for (let i = 0; i < rows; i++) {
    const [[top, bottom, v], [left, right, h]] = [down[i], across[i]] as [(typeof down)[0], (typeof down)[0]];
    from.set([top * side + left, top * side + right, bottom * side + left, bottom * side + right], 4 * i);
    weights.set([v[0] * h[0], v[0] * h[1], v[1] * h[0], v[1] * h[1]], 4 * i);
  }
  return { rows, parts: 1, taps: 4, from, weights };
}

/** Concatenates maps; the inputs of map i begin at row `starts[i]`. */
export function joinMaps(maps: readonly RowMap[], starts: readonly number[]): RowMap {
  const [first] = maps;
  if (first === undefined) return selectRows([]);
  // A film of thousands of frames has millions of entries: no lists of them.
  const from = new Int32Array(maps.reduce((sum, map) => sum + map.from.length, 0));
  let at = 0;
  for (const [i, map] of maps.entries())
    for (const row of map.from) from[at++] = row < 0 ? row : row + (starts[i] as number);
  return {
    rows: maps.reduce((sum, { rows }) => sum + rows, 0),
    parts: first.parts,
    taps: 1,
    from,
  };
}

/** Whether a map is the identity on n rows. */
export function isIdentity(map: RowMap, n: number): boolean {
  return (
    map.parts === 1 &&
    map.taps === 1 &&
    map.weights === undefined &&
    map.rows === n &&
    map.from.every((row, i) => row === i)
  );
}

/** f32 [n, c] -> f32 [rows, parts · c]; a new tensor. */
export function mapRows(x: Tensor, map: RowMap): Tensor {
  const [n, c] = x.shape as [number, number];
  if (isIdentity(map, n)) return x.clone();
  const { tf } = start();
  const { rows, parts, taps, from, weights } = map;
  return tf.tidy(() => {
    const source = from.includes(-1) ? tf.concat([x, tf.zeros([1, c])]) : x;
    let sum: Tensor | undefined;
    for (let tap = 0; tap < taps; tap++) {
      const ids = tapOf(from, tap, taps).map((row) => (row < 0 ? n : row));
      let term: Tensor = tf.gather(source, int32(ids));
      if (weights !== undefined) term = tf.mul(term, float32(tapOf(weights, tap, taps), [rows * parts, 1]));
      sum = sum === undefined ? term : tf.add(sum, term);
    }
    return tf.reshape(sum as Tensor, [rows, parts * c]);
  });
}

function tapOf<T extends Int32Array | Float32Array>(values: T, tap: number, taps: number): T {
  if (taps === 1) return values;
  const y = values.slice(0, values.length / taps) as T;
  for (let i = 0; i < y.length; i++) y[i] = values[i * taps + tap] as number;
  return y;
}

/**
 * Applies a map to numbers, flat [n, width] -> flat [rows, width], taking the mean over a row's parts: a token inherits the mean of its
 * patches. Parts without any input row (padding) do not count.
 */
export function mapValues(values: Float32Array, map: RowMap, width: number): Float32Array {
  const { rows, parts, taps, from, weights } = map;
  const y = new Float32Array(rows * width);
  const sums = new Float64Array(width);
  for (let i = 0; i < rows; i++) {
    sums.fill(0);
    let present = 0;
    for (let part = 0; part < parts; part++) {
      let isPresent = false;
      for (let at = (i * parts + part) * taps, tap = 0; tap < taps; tap++, at++) {
        const row = from[at] as number;
        if (row < 0) continue;
        isPresent = true;
        const weight = weights === undefined ? 1 : (weights[at] as number);
        for (let e = 0; e < width; e++) sums[e] = (sums[e] as number) + weight * (values[row * width + e] as number);
      }
      present += Number(isPresent);
    }
    for (let e = 0; e < width; e++) y[i * width + e] = (sums[e] as number) / present;
  }
  return y;
}

/** For each of n rows its index among the listed ones, ascending, or -1. */
export function placesIn(rows: Int32Array, n: number): Int32Array {
  const places = new Int32Array(n).fill(-1);
  for (const [i, row] of rows.entries()) places[row] = i;
  return places;
}

/** f32 [m, c] -> f32 [n, c]: row i is row `places[i]`, or zeros for -1. Disposes of x. */
export function spread(x: Tensor, places: Int32Array): Tensor {
  const y = mapRows(x, selectRows(places));
  x.dispose();
  return y;
}

/** The same for numbers, flat [m, width] -> flat [n, width]. */
export function spreadValues(values: Float32Array, places: Int32Array, width: number): Float32Array {
  const y = new Float32Array(places.length * width);
  for (const [i, place] of places.entries())
    if (place >= 0) y.set(values.subarray(place * width, (place + 1) * width), i * width);
  return y;
}
