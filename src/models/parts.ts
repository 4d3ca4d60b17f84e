// A video in parts: consecutive frames that share neither patches that attend each other nor tokens with the rest. A part is laid out as a medium
// of its own, so that the tower gives its tokens the bits that they have in the whole, while only the pixels of one part are in memory.

import { type Grid, type MediumLayout, type Patches, planeTokens, type RowMap } from './media';
import type { TowerConfig } from './tower';

/** Tokens from .. to - 1 of a medium. */
export interface TokenRange {
  readonly from: number;
  readonly to: number;
}

export interface MediumPart {
  /** The part alone: its canvases, patches, row maps and planes. It has no runs and no text. */
  readonly layout: MediumLayout;
  /** For each grid, which the part has as well, the tokens of the medium that are in the part; they may be none. */
  readonly tokens: readonly TokenRange[];
}

/** Fewest patches of a part: calls for fewer rows cost more than the rows. */
const LEAST_PATCHES = 256;

/**
 * The parts of a medium, from its first frame to its last. A picture is one part.
 * @param classToken whether the tower gives each segment of patches a class row, which comes first
 */
export function* partsOf(
  layout: MediumLayout,
  { classToken }: Pick<TowerConfig, 'classToken'>,
  least = LEAST_PATCHES,
): Generator<MediumPart> {
  const { segments } = layout.patches;
  const last = segments.length - 1;
  const classRows = Number(classToken);
  const cuts = layout.kind === 'image' ? undefined : cutsOf(layout, classRows);
  let begin = 0;
  for (let end = 1; cuts !== undefined && end < last; end++) {
    const isSmall = (segments[end] as number) - (segments[begin] as number) < least;
    if (isSmall || !cuts.isCut(end)) continue;
    yield partOf(layout, cuts, { begin, end, classRows });
    begin = end;
  }
  if (cuts === undefined || begin === 0) yield { layout, tokens: rangesOf(layout) };
  else yield partOf(layout, cuts, { begin, end: last, classRows });
}

/** The tokens of each grid. */
export function rangesOf({ grids }: Pick<MediumLayout, 'grids'>): TokenRange[] {
  let to = 0;
  return grids.map((grid) => {
    const from = to;
    to += grid.t * planeTokens(grid);
    return { from, to };
  });
}

/** For each of some rows or planes, the first and the last segment of whose patches it is made. */
interface Reaches {
  readonly first: Int32Array;
  readonly last: Int32Array;
}

interface Cuts {
  /** Whether nothing is made of patches on both sides of the beginning of a segment. */
  isCut(segment: number): boolean;
  /** For each grid the planes, and the rows of `merge`, that are made of segments before one: as many as it counts from the first. */
  planesBefore(segment: number): number[];
  mergedBefore(segment: number): number;
}

/** Where a layout can be cut; undefined if its planes do not follow its segments. */
function cutsOf(layout: MediumLayout, classRows: number): Cuts | undefined {
  const { merge, pool, grids, patches } = layout;
  const merged = reachesOf(merge, segmentsOfRows(patches, classRows));
  const tokens = pool === undefined ? merged : reachesOf(pool, merged);
  const planes = rangesOf(layout).map(({ from, to }, i) => {
    const each = planeTokens(grids[i] as Grid);
    const own = Int32Array.from({ length: to - from }, (_, token) => from + token);
    return reachesOf({ rows: (to - from) / each, parts: each, taps: 1, from: own }, tokens);
  });
  const all = pool === undefined ? planes : [...planes, merged];
  if (!all.every(({ first, last }) => isAscending(first) && isAscending(last))) return undefined;
  const isInside = new Uint8Array(patches.segments.length);
  for (const { first, last } of all)
    for (const [i, segment] of first.entries()) isInside.fill(1, segment + 1, (last[i] as number) + 1);
  return {
    isCut: (segment) => isInside[segment] === 0,
    planesBefore: (segment) => planes.map(({ last }) => countBelow(last, segment)),
    mergedBefore: (segment) => countBelow(merged.last, segment),
  };
}

const isAscending = (values: Int32Array): boolean =>
  values.every((value, i) => i === 0 || value >= (values[i - 1] as number));

/** How many of ascending numbers are below a bound. */
function countBelow(values: Int32Array, bound: number): number {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((values[middle] as number) < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The segment of each row that the tower gives. */
function segmentsOfRows({ segments }: Patches, classRows: number): Reaches {
  const count = segments.length - 1;
  const own = new Int32Array((segments[count] as number) + count * classRows);
  for (let s = 0; s < count; s++)
    own.fill(s, (segments[s] as number) + s * classRows, (segments[s + 1] as number) + (s + 1) * classRows);
  return { first: own, last: own };
}

/** The reach of each output row of a map, from those of its inputs. */
function reachesOf({ rows, parts, taps, from }: RowMap, inputs: Reaches): Reaches {
  const each = parts * taps;
  const first = new Int32Array(rows).fill(2 ** 31 - 1);
  const last = new Int32Array(rows).fill(-1);
  for (let i = 0; i < rows * each; i++) {
    const [row, input] = [Math.floor(i / each), from[i] as number];
    if (input < 0) continue;
    first[row] = Math.min(first[row] as number, inputs.first[input] as number);
    last[row] = Math.max(last[row] as number, inputs.last[input] as number);
  }
  return { first, last };
}

/** Segments begin … end - 1 as a medium of their own. */
function partOf(
  layout: MediumLayout,
  cuts: Cuts,
  { begin, end, classRows }: { readonly begin: number; readonly end: number; readonly classRows: number },
): MediumPart {
  const { canvases, patches, merge, pool, grids } = layout;
  const { segments, corners, windows } = patches;
  const [firstPatch, endPatch] = [segments[begin] as number, segments[end] as number];
  const canvasOf = (patch: number): number => corners[3 * patch] ?? canvases.length;
  const [firstCanvas, endCanvas] = [canvasOf(firstPatch), canvasOf(endPatch)];
  const [from, to] = [cuts.planesBefore(begin), cuts.planesBefore(end)];
  const tokens = rangesOf(layout).map((range, i): TokenRange => {
    const each = planeTokens(grids[i] as Grid);
    return { from: range.from + (from[i] as number) * each, to: range.from + (to[i] as number) * each };
  });
  const merged = { from: cuts.mergedBefore(begin), to: cuts.mergedBefore(end) };
  const firstRow = firstPatch + begin * classRows;
  const own = corners.slice(3 * firstPatch, 3 * endPatch);
  for (let i = 0; i < own.length; i += 3) own[i] = (own[i] as number) - firstCanvas;
  const within = windows?.filter((at) => at >= firstPatch && at <= endPatch).map((at) => at - firstPatch);
  return {
    tokens,
    layout: {
      kind: layout.kind,
      canvases: canvases.slice(firstCanvas, endCanvas),
      patches: {
        corners: own,
        segments: segments.slice(begin, end + 1).map((at) => at - firstPatch),
        ...(within && { windows: within }),
      },
      merge: sliceMap(merge, pool === undefined ? tokens : [merged], firstRow),
      ...(pool && { pool: sliceMap(pool, tokens, merged.from) }),
      grids: grids.map((grid, i): Grid => {
        const frames = grid.frames.slice(from[i], to[i]);
        return { ...grid, t: frames.length, frames: frames.map((frame) => frame - (frames[0] as number)) };
      }),
      ...{ runs: [], text: '', ...(layout.share !== undefined && { share: layout.share }) },
    },
  };
}

/** The rows of some ranges, from inputs of which the first is `first`. */
function sliceMap({ parts, taps, from, weights }: RowMap, ranges: readonly TokenRange[], first: number): RowMap {
  const each = parts * taps;
  const rows = ranges.reduce((sum, range) => sum + range.to - range.from, 0);
  const own = new Int32Array(rows * each);
  const shares = weights && new Float32Array(rows * each);
  let at = 0;
  for (const range of ranges) {
    own.set(from.subarray(range.from * each, range.to * each), at);
    if (weights !== undefined) shares?.set(weights.subarray(range.from * each, range.to * each), at);
    at += (range.to - range.from) * each;
  }
  for (const [i, row] of own.entries()) if (row >= 0) own[i] = row - first;
  return { rows, parts, taps, from: own, ...(shares && { weights: shares }) };
}
