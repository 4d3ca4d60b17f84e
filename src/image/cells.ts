// The cells of a token grid on their picture: the whole picture, a padded square, a crop or a tile.

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** A rectangle in pixels of a picture; it may extend beyond the picture into padding. */
export interface Region extends Size {
  readonly left: number;
  readonly top: number;
}

/** The division of a region into cells: it is shown as a square of `size` pixels, and block × block patches become one token. */
export interface InputGrid {
  readonly size: number;
  readonly patch: number;
  readonly block: number;
}

/**
 * A token grid on its picture; all lengths are pixels of the picture. Cell (row, col) covers x from `col * cell.width` to
 * `min((col + 1) * cell.width, covered.width)` of the canvas, and y accordingly: the last blocks may be cut, and a remainder of the input
 * that fills no patch belongs to no cell.
 */
export interface CellGeometry {
  /** The region that the model saw: the picture and the padding around it. */
  readonly canvas: Size;
  /** The picture's top left corner on the canvas. */
  readonly picture: { readonly left: number; readonly top: number };
  readonly cell: Size;
  readonly covered: Size;
}

/** The whole picture. */
export function wholePicture({ width, height }: Size): Region {
  return { left: 0, top: 0, width, height };
}

/** The square that `pad` makes, with the picture in its center. */
export function paddedSquare({ width, height }: Size): Region {
  const side = Math.max(width, height);
  return { left: -Math.floor((side - width) / 2), top: -Math.floor((side - height) / 2), width: side, height: side };
}

/** The geometry of the cells of one region. */
export function cellsOfRegion({ left, top, width, height }: Region, { size, patch, block }: InputGrid): CellGeometry {
  const scaled = (pixels: number): Size => ({ width: (pixels * width) / size, height: (pixels * height) / size });
  return {
    canvas: { width, height },
    picture: { left: 0 - left, top: 0 - top },
    cell: scaled(patch * block),
    covered: scaled(Math.floor(size / patch) * patch),
  };
}

/** The geometry of rows × cols equal cells that cover a whole picture, or a region of it. */
export function evenCells(
  { width, height, left = 0, top = 0 }: Size & Partial<Region>,
  rows: number,
  cols: number,
): CellGeometry {
  const canvas = { width, height };
  return {
    canvas,
    picture: { left: 0 - left, top: 0 - top },
    cell: { width: width / cols, height: height / rows },
    covered: canvas,
  };
}
