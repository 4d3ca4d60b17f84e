// Down-sampling: the picture itself, resized until it has no more tokens than a method would keep. The baseline of VTC-Bench (arXiv
// 2510.07143): what a method must beat to have selected anything.
// Stage: before the tower, where the family shows a smaller picture by fewer tokens (Qwen), and otherwise tower: the tokens of each plane
// are averaged over cells of equal area. Query-aware: no. Safe for later turns: yes.

import { checkOptions } from '../options';
import type { Selection, SparsityMethod, TowerView } from './method';
import { POSITIONS, SHARE } from './options';
import { perPlane } from './planes';
import { budget } from './top_k';
import { meansOf } from './vectors';

export interface DownsampleOptions {
  /** Share of visual tokens that are saved; default 3/4, half of each side. */
  readonly prefillSparsity?: number;
  readonly positions?: 'original' | 'compact';
}

/** A picture of at most round((1 - p) n) tokens; where it has more, means of its tokens, each in the place of the token in its cell's center. */
export function downsample(options: DownsampleOptions = {}): SparsityMethod {
  const given = checkOptions('downsample', options, { prefillSparsity: SHARE, positions: POSITIONS });
  const { prefillSparsity = 3 / 4, positions = 'original' } = given;
  return {
    name: 'downsample',
    positions,
    ...(prefillSparsity > 0 && { resize: 1 - prefillSparsity }),
    prune: {
      scope: 'plane',
      select: perPlane((plane) =>
        averaged(plane, Math.min(plane.tokens, budget(Math.round(plane.tokens / plane.share), prefillSparsity))),
      ),
    },
  };
}

/** `kept` cells: bands of rows, each cut into as many columns as its part of the budget, at most one more than another band. */
function averaged({ tokens, grid, features }: TowerView, kept: number): Selection {
  if (kept === tokens) return Int32Array.from({ length: tokens }, (_, i) => i);
  const { h, w } = grid;
  const least = Math.ceil(kept / w);
  const bands = Math.min(h, kept, Math.max(least, Math.round(Math.sqrt((kept * h) / w))));
  const cells: number[][] = [];
  const centers: number[] = [];
  for (let band = 0; band < bands; band++) {
    const [top, bottom] = [part(h, bands, band), part(h, bands, band + 1)];
    const columns = part(kept, bands, band + 1) - part(kept, bands, band);
    for (let column = 0; column < columns; column++) {
      const [left, right] = [part(w, columns, column), part(w, columns, column + 1)];
      cells.push(
        Array.from({ length: (bottom - top) * (right - left) }, (_, i) => {
          const row = top + Math.floor(i / (right - left));
          return row * w + left + (i % (right - left));
        }),
      );
      centers.push(((top + bottom - 1) >> 1) * w + ((left + right - 1) >> 1));
    }
  }
  return { kept: Int32Array.from(centers), rows: meansOf(features(), cells) };
}

/** Where the i-th of `count` parts of n begins. */
const part = (n: number, count: number, i: number): number => Math.floor((i * n) / count);
