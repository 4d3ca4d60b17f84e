// Sheets: planes that are drawn together. The tiles of a picture are side by side on one sheet; an overlapping plane such as a thumbnail has a
// sheet of its own, and so has each plane of a video. Works on numbers only.

import type { Size } from '../image/cells';
import type { Plane, PlaneAttention } from './attended';
import type { CanvasPart } from './canvas';

/** Planes of one medium and one frame that do not overlap. Cells are numbered consecutively, plane after plane. */
export interface Sheet {
  readonly planes: readonly Plane[];
  /** The frame that it shows. */
  readonly frame: number;
  /** The region that the model saw: the union of the planes' regions, in pixels of the picture. */
  readonly canvas: Size;
  /** The picture's top left corner on the canvas. */
  readonly origin: { readonly left: number; readonly top: number };
  readonly parts: readonly CanvasPart[];
  readonly kept: Int32Array;
  readonly salience: Float32Array | undefined;
}

/** The attention of one turn to one sheet, with the sheet's cell indices. */
export type SheetAttention = Pick<PlaneAttention, 'retrieved' | 'relevance'>;

/** Pixels by which neighboring planes may overlap if the picture's size is not a multiple of theirs. */
const TOUCHING = 0.01;

interface Bounds {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

function boundsOf({ cells: { canvas, picture } }: Plane): Bounds {
  const [left, top] = [0 - picture.left, 0 - picture.top];
  return { left, top, right: left + canvas.width, bottom: top + canvas.height };
}

function overlap(a: Bounds, b: Bounds): boolean {
  return (
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > TOUCHING &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > TOUCHING
  );
}

/** The sheets of one medium's planes, in the order of their first planes. */
export function sheetsOf(planes: readonly Plane[]): Sheet[] {
  const groups: Plane[][] = [];
  for (const plane of planes) {
    const own = boundsOf(plane);
    const group = groups.find(
      ([first, ...others]) =>
        first?.frame === plane.frame && [first, ...others].every((other) => !overlap(boundsOf(other), own)),
    );
    if (group === undefined) groups.push([plane]);
    else group.push(plane);
  }
  return groups.map(sheetOf);
}

function sheetOf(planes: readonly Plane[]): Sheet {
  const bounds = planes.map(boundsOf);
  const [left, top] = [Math.min(...bounds.map((one) => one.left)), Math.min(...bounds.map((one) => one.top))];
  const [right, bottom] = [Math.max(...bounds.map((one) => one.right)), Math.max(...bounds.map((one) => one.bottom))];
  const firsts = firstCells(planes);
  const saliences = planes.map(({ salience }) => salience);
  return {
    planes,
    frame: planes[0]?.frame ?? 0,
    canvas: { width: right - left, height: bottom - top },
    origin: { left: 0 - left, top: 0 - top },
    parts: planes.map(({ grid, cells }, i) => ({
      ...{ grid, cells, first: firsts[i] as number },
      left: (bounds[i] as Bounds).left - left,
      top: (bounds[i] as Bounds).top - top,
    })),
    kept: Int32Array.from(planes.flatMap(({ kept }, i) => Array.from(kept, (cell) => cell + (firsts[i] as number)))),
    salience: saliences.includes(undefined)
      ? undefined
      : Float32Array.from(saliences.flatMap((own) => Array.from(own ?? []))),
  };
}

/** The attention of a turn to a sheet, joined from its planes; undefined before the sheet was added. */
export function sheetAttention({ planes }: Sheet, attended: readonly PlaneAttention[]): SheetAttention | undefined {
  const own = planes.map(({ index }) => attended[index]);
  const firsts = firstCells(planes);
  const known = own.filter((look) => look !== undefined);
  const [first] = known;
  if (first === undefined || known.length < own.length) return undefined;
  const { retrieved, relevance } = first;
  return {
    retrieved: retrieved?.map((_, layer) =>
      known.flatMap((look, i) => (look.retrieved?.[layer] ?? []).map((cell) => cell + (firsts[i] as number))),
    ),
    relevance: relevance?.map((_, layer) =>
      Float32Array.from(known.flatMap((look) => Array.from(look.relevance?.[layer] ?? []))),
    ),
  };
}

function firstCells(planes: readonly Plane[]): number[] {
  let first = 0;
  return planes.map(({ grid }) => {
    const own = first;
    first += grid.rows * grid.cols;
    return own;
  });
}

/** Maximum number of sheets of one video that are drawn. */
const MOST_FRAMES = 8;

/** At most eight of a video's sheets, evenly chosen: each in the middle of its interval. */
export function evenly<T>(sheets: readonly T[]): T[] {
  if (sheets.length <= MOST_FRAMES) return [...sheets];
  return Array.from(
    { length: MOST_FRAMES },
    (_, i) => sheets[Math.floor(((i + 0.5) * sheets.length) / MOST_FRAMES)] as T,
  );
}
