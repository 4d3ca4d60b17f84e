// Draws the visual tokens that a turn used as characters: one for each token, in the layout of the image.
// Knows no model; only numbers.

import type { Style } from '../../src/cli/style';

export interface TokenUse {
  readonly grid: { readonly rows: number; readonly cols: number };
  /** Tokens that were kept, ascending. */
  readonly kept: Int32Array;
  /** Per layer, indices into `kept`. */
  readonly retrieved: readonly Int32Array[];
}

/** The legend of the characters. */
export const LEGEND = '· dropped at prefill   o kept, not retrieved   1-9 retrieved, by so many of the layers';

/** One line for each row of the grid, under a line of column letters. */
export function tokenMap({ grid, kept, retrieved }: TokenUse, style: Style): string[] {
  const layers = new Map<number, number>();
  for (const token of kept) layers.set(token, 0);
  for (const indices of retrieved) {
    for (const i of indices) {
      const token = kept[i] ?? -1;
      layers.set(token, (layers.get(token) ?? 0) + 1);
    }
  }
  const mark = (token: number): string => {
    const count = layers.get(token);
    if (count === undefined) return style('dim', '·');
    if (count === 0) return style('cyan', 'o');
    return style(['bold', 'yellow'], String(Math.min(count, 9)));
  };
  const columns = Array.from({ length: grid.cols }, (_, col) => String.fromCharCode(97 + (col % 26)));
  const rows = Array.from({ length: grid.rows }, (_, row) => {
    const cells = columns.map((_, col) => mark(row * grid.cols + col));
    return `${style('dim', String(row % 10))} ${cells.join(' ')}`;
  });
  return [`  ${style('dim', columns.join(' '))}`, ...rows];
}

export const STRIP_LEGEND =
  'one character for each frame: the fuller, the more of the rows that the answer attended are in it';

/** One character for each frame, by its share of the largest count. */
export function filmStrip(counts: readonly number[]): string {
  const levels = ' ▁▂▃▄▅▆▇█';
  const most = Math.max(1, ...counts);
  return counts.map((count) => levels[Math.ceil((count / most) * (levels.length - 1))] ?? ' ').join('');
}
