// A plan whose media are resized before they are laid out, so that their layouts have fewer tokens: the down-sampling that VTC-Bench
// (arXiv 2510.07143) compares sparsity methods with.

import type { Draw } from '../image/canvas';
import type { CellGeometry, Size } from '../image/cells';
import { type MediumLayout, type MediumSize, type PreparedMedium, type TurnMedia, tokensOf } from './media';
import type { Plan } from './plan';

/** Halvings of the range of scales: sides are found to the pixel. */
const STEPS = 16;

/**
 * `plan` with layouts of at most `share` of their tokens, wherever a smaller picture has fewer: its layout then says which share it has left.
 * Where the layout does not depend on the size of the picture, or not enough, it stays as it is.
 */
export function smallerPlan(plan: Plan, share: number): Plan {
  return { ...plan, layout: (size, turn) => smaller(plan, size, turn, share).layout };
}

/** A medium that was prepared with such a plan, as `plan` itself would lay out the resized one. */
export function asResized(plan: Plan, medium: PreparedMedium, share: number): PreparedMedium {
  const { size, turn } = medium.made;
  return { ...medium, made: { size: smaller(plan, size, turn, share).size, turn } };
}

/** The largest size whose layout has at most `share` of the tokens, and that layout. */
function smaller(
  plan: Plan,
  size: MediumSize,
  turn: TurnMedia,
  share: number,
): { readonly size: MediumSize; readonly layout: MediumLayout } {
  const whole = plan.layout(size, turn);
  const most = Math.max(1, Math.round(share * tokensOf(whole)));
  if (tokensOf(whole) <= most) return { size, layout: whole };
  const at = (scale: number): MediumSize => ({
    ...size,
    width: Math.max(1, Math.round(size.width * scale)),
    height: Math.max(1, Math.round(size.height * scale)),
  });
  let [low, high] = [0, 1];
  for (let step = 0; step < STEPS; step++) {
    const middle = (low + high) / 2;
    if (tokensAt(plan, at(middle), turn) <= most) low = middle;
    else high = middle;
  }
  const to = at(low);
  const left = tokensAt(plan, to, turn);
  if (left === 0 || left > most) return { size, layout: whole };
  const layout = plan.layout(to, turn);
  const resize: Draw = { step: 'resize', to: { width: to.width, height: to.height }, filter: 'bicubic' };
  const canvases = layout.canvases.map((canvas) => ({ ...canvas, steps: [resize, ...canvas.steps] }));
  const grids = layout.grids.map((grid) => ({ ...grid, cells: onOriginal(grid.cells, to, size) }));
  return { size: to, layout: { ...layout, canvases, grids, share: left / tokensOf(whole) } };
}

/** The geometry of cells of a resized picture, in pixels of the original. */
function onOriginal({ canvas, picture, cell, covered }: CellGeometry, from: Size, to: Size): CellGeometry {
  const [x, y] = [to.width / from.width, to.height / from.height];
  const scaled = ({ width, height }: Size): Size => ({ width: width * x, height: height * y });
  return {
    ...{ canvas: scaled(canvas), cell: scaled(cell), covered: scaled(covered) },
    picture: { left: picture.left * x, top: picture.top * y },
  };
}

/** The number of tokens of a picture of a size; 0 if the family refuses it, which it does with the smallest ones. */
function tokensAt(plan: Plan, size: MediumSize, turn: TurnMedia): number {
  try {
    return tokensOf(plan.layout(size, turn));
  } catch {
    return 0;
  }
}
