// The part of a medium that the tower computes when only some of its tokens are wanted: the patches of these tokens, at their own places, and the
// row map that makes the tokens of them. What is left out is no key of the others.

import type { MediumLayout, Patches, RowMap } from './media';

/**
 * Patches and row map for `tokens`, ascending, of a layout. Patches that no wanted token is made of are left out, and so are segments and windows
 * without patches.
 * @param classRows 1 if the tower gives each segment a class row, which comes first; else 0
 */
export function keepTokens(
  { patches, merge }: Pick<MediumLayout, 'patches' | 'merge'>,
  tokens: Int32Array,
  classRows: number,
): { readonly patches: Patches; readonly merge: RowMap } {
  const each = merge.parts * merge.taps;
  const from = new Int32Array(tokens.length * each);
  const weights = merge.weights && new Float32Array(from.length);
  for (const [i, token] of tokens.entries()) {
    from.set(merge.from.subarray(token * each, (token + 1) * each), i * each);
    if (merge.weights) weights?.set(merge.weights.subarray(token * each, (token + 1) * each), i * each);
  }
  const left = leftOf(patches, new Set(from), classRows);
  const own = from.map((row) => (row < 0 ? row : (left.rows[row] as number)));
  return {
    patches: left.patches,
    merge: { ...merge, rows: tokens.length, from: own, ...(weights && { weights }) },
  };
}

/** The patches whose rows are wanted, and for each row of the tower its index among the rows that are left. */
function leftOf(
  { corners, segments, windows }: Patches,
  wanted: ReadonlySet<number>,
  classRows: number,
): { readonly patches: Patches; readonly rows: Int32Array } {
  const count = segments.length - 1;
  const rows = new Int32Array((segments[count] as number) + count * classRows).fill(-1);
  const kept: number[] = [];
  const bounds = [0];
  const extents: number[] = [];
  for (let s = 0; s < count; s++) {
    const [begin, end] = [segments[s] as number, segments[s + 1] as number];
    const first = begin + s * classRows;
    const own: number[] = [];
    const extent: [number, number] = [0, 0];
    for (let patch = begin; patch < end; patch++) {
      const [top, left] = [corners[3 * patch + 1] as number, corners[3 * patch + 2] as number];
      extent[0] = Math.max(extent[0], top);
      extent[1] = Math.max(extent[1], left);
      if (wanted.has(first + classRows + patch - begin)) own.push(patch);
    }
    const isWanted = own.length > 0 || (classRows > 0 && wanted.has(first));
    if (!isWanted) continue;
    const start = kept.length + (bounds.length - 1) * classRows;
    if (classRows > 0) rows[first] = start;
    for (const [i, patch] of own.entries()) rows[first + classRows + patch - begin] = start + classRows + i;
    for (const patch of own) kept.push(patch);
    bounds.push(kept.length);
    extents.push(extent[0], extent[1]);
  }
  const below = (bound: number): number => firstAtLeast(kept, bound);
  return {
    rows,
    patches: {
      corners: Int32Array.from(
        { length: 3 * kept.length },
        (_, i) => corners[3 * (kept[Math.floor(i / 3)] as number) + (i % 3)] as number,
      ),
      segments: Int32Array.from(bounds),
      extents: Int32Array.from(extents),
      ...(windows && { windows: Int32Array.from(new Set(Array.from(windows, below))) }),
    },
  };
}

/** How many of ascending numbers are below a bound. */
function firstAtLeast(ascending: readonly number[], bound: number): number {
  let [low, high] = [0, ascending.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ascending[middle] as number) < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}
