// What a scene holds: frames of 10 x 10 cells, a few of them with a colored glyph. Knows no pixels.
// Source: scene.py of the packaged model's training set, whose draws it repeats in order.

import type { Random } from './random';

export const GRID = 10;
const CELLS = GRID * GRID;
export const EMPTY = -1;

/** Names of glyphs, in the order of the glyph bank: letters, digits, shapes. */
export const TYPES: readonly string[] = [
  ...'ABCDEFGHJKLMNPRSTUVWXYZ',
  ...'23456789',
  ...['circle', 'square', 'triangle', 'star', 'cross'],
];

/** Colors by name, 8-bit sRGB. */
export const COLORS: Readonly<Record<string, readonly [number, number, number]>> = {
  red: [220, 40, 40],
  green: [40, 170, 60],
  blue: [50, 80, 220],
  yellow: [235, 215, 50],
  purple: [150, 50, 190],
  orange: [245, 140, 30],
  cyan: [40, 200, 220],
  white: [248, 248, 248],
};
export const COLOR_NAMES: readonly string[] = Object.keys(COLORS);

/** One picture: indices into TYPES and COLOR_NAMES, int8 [100] in raster order, EMPTY where there is nothing. */
export interface Frame {
  readonly types: Int8Array;
  readonly colors: Int8Array;
}

/** A frame with `fewest` to `most` glyphs on cells of its own; in every other frame on average no glyph is there twice. */
export function sampleFrame(random: Random, fewest = 3, most = 14): Frame {
  const count = fewest + random.below(most - fewest + 1);
  const types = new Int8Array(CELLS).fill(EMPTY);
  const colors = new Int8Array(CELLS).fill(EMPTY);
  const cells = random.sample(CELLS, count);
  const kinds =
    random.next() < 0.5
      ? random.sample(TYPES.length, Math.min(count, TYPES.length))
      : cells.map(() => random.below(TYPES.length));
  for (const [i, kind] of kinds.entries()) {
    const cell = cells[i] as number;
    types[cell] = kind;
    colors[cell] = random.below(COLOR_NAMES.length);
  }
  return { types, colors };
}

/** Cells are named like a map's squares: column letter, row digit. */
export function cellName(cell: number): string {
  return `${'abcdefghij'[cell % GRID]}${Math.floor(cell / GRID)}`;
}
