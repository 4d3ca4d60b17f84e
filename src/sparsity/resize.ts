// Resizes the grid of a plane's projected tokens by bilinear interpolation.

import type { Matrix, Selection, TowerView } from './method';

export interface Size {
  readonly h: number;
  readonly w: number;
}
export const areaOf = ({ h, w }: Size): number => h * w;

/** The largest grid of at most n tokens about in the aspect ratio of h × w, and not larger than it: one more row or else column where it fits. */
export function gridWithin(n: number, { h, w }: Size): Size {
  if (n === 0) return { h: 0, w: 0 };
  const scale = Math.sqrt(n / (h * w));
  const side = (length: number): number => Math.min(length, n, Math.max(1, Math.floor(length * scale + 1e-9)));
  const [rows, cols] = [side(h), side(w)];
  if (rows < h && (rows + 1) * cols <= n) return { h: rows + 1, w: cols };
  return cols < w && rows * (cols + 1) <= n ? { h: rows, w: cols + 1 } : { h: rows, w: cols };
}

/** The tokens of a plane as at most n tokens: themselves, none, or projected rows at the places of the cells that they cover most. */
export function resized(frame: TowerView, n: number): Selection {
  const { h, w } = frame.grid;
  const to = gridWithin(n, { h, w });
  if (areaOf(to) === frame.tokens) return Int32Array.from({ length: frame.tokens }, (_, i) => i);
  if (areaOf(to) === 0) return new Int32Array();
  const [down, across] = [tapsOf(h, to.h), tapsOf(w, to.w)];
  const cells = down.flatMap((y) => across.map((x) => ({ x, y })));
  return {
    kept: Int32Array.from(cells, ({ x, y }) => y.at * w + x.at),
    rows: interpolated(frame.projected(), w, cells),
  };
}

/** On one axis: the two neighbors of an output, the weight of the second one, and the input below the output's center. */
interface Tap {
  readonly near: number;
  readonly far: number;
  readonly share: number;
  readonly at: number;
}

/** Source: torch `interpolate`, bilinear, align_corners false. */
function tapsOf(from: number, to: number): Tap[] {
  return Array.from({ length: to }, (_, i) => {
    const center = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    const near = Math.floor(center);
    const at = Math.floor(((i + 0.5) * from) / to);
    return { near, far: Math.min(near + 1, from - 1), share: center - near, at };
  });
}

function interpolated({ data, width }: Matrix, w: number, cells: readonly { x: Tap; y: Tap }[]): Float32Array {
  const rows = new Float32Array(cells.length * width);
  for (const [i, { x, y }] of cells.entries())
    for (let c = 0; c < width; c++) {
      const value = (row: number, col: number): number => data[(row * w + col) * width + c] as number;
      const top = value(y.near, x.near) * (1 - x.share) + value(y.near, x.far) * x.share;
      const bottom = value(y.far, x.near) * (1 - x.share) + value(y.far, x.far) * x.share;
      rows[i * width + c] = top * (1 - y.share) + bottom * y.share;
    }
  return rows;
}
