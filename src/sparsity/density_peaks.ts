// Density-peak clustering, with which SparseVLM recycles dropped rows (Zhang et al., arXiv 2410.04417; densities from the k nearest
// neighbors, Du, Ding and Jia 2016).

import type { Matrix, Selection } from './method';
import { ranked } from './top_k';
import { meansOf, squaredDistance, takeRows } from './vectors';

/** Keeps `best` unchanged, and adds `pool` as the means of `clusters` clusters, each in the place of its center. */
export function recycle(rows: Matrix, best: Int32Array, pool: Int32Array, clusters: number): Selection {
  const members = clustersOf({ data: takeRows(rows, pool), width: rows.width }, clusters).map(({ center, of }) => ({
    at: pool[center] as number,
    of: of.map((i) => pool[i] as number),
  }));
  const kept = Int32Array.from([...best, ...members.map(({ at }) => at)]).sort();
  const merged = takeRows(rows, kept);
  for (const { at, of } of members) {
    merged.set(meansOf(rows, [of]), kept.indexOf(at) * rows.width);
  }
  return { kept, rows: merged };
}

/**
 * d_ij = |x_i - x_j| / sqrt(width); density = exp(-mean of d^2 to the k nearest rows), k = clusters; the peak distance of a row is its
 * distance to the nearest row of higher density (of equal densities the lower index counts as higher); the densest row's is its largest
 * distance. Centers are the rows with the largest density times peak distance; every row joins the nearest center.
 */
export function clustersOf(x: Matrix, clusters: number): { center: number; of: number[] }[] {
  const n = x.data.length / x.width;
  const squares = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < i; j++) {
      squares[i * n + j] = squaredDistance(x, i, x, j) / x.width;
      squares[j * n + i] = squares[i * n + j] as number;
    }
  const to = (i: number, j: number): number => squares[i * n + j] as number;
  const rows = Array.from({ length: n }, (_, i) => i);
  const density = rows.map((i) => {
    const sorted = Float64Array.from(squares.subarray(i * n, (i + 1) * n)).sort();
    // The nearest row is the row itself; it counts, as in the released code.
    const near = sorted.subarray(0, clusters);
    return Math.exp(-near.reduce((sum, d) => sum + d, 0) / near.length);
  });
  const farthest = Math.sqrt(squares.reduce((a, b) => Math.max(a, b), 0));
  const peaks = rows.map((i) => {
    const higher = rows.filter(
      (j) => (density[j] as number) > (density[i] as number) || (density[j] === density[i] && j < i),
    );
    const distance =
      higher.length === 0
        ? farthest
        : Math.sqrt(higher.reduce((least, j) => Math.min(least, to(i, j)), Number.POSITIVE_INFINITY));
    return distance * (density[i] as number);
  });
  const found = Array.from(ranked(Float32Array.from(peaks)).subarray(0, clusters), (center) => ({
    center,
    of: [center],
  }));
  const centers = new Set(found.map(({ center }) => center));
  for (const i of rows) {
    if (centers.has(i)) continue;
    found.reduce((a, b) => (to(i, b.center) < to(i, a.center) ? b : a)).of.push(i);
  }
  return found;
}
