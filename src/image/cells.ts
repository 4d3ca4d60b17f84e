// Where the cells of a token grid lie on the picture that they were made of. Knows how `preprocess` pads and resizes; knows
// nothing about towers but the size of their patches.

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** What a model makes of a picture: a square input of `size` pixels, cut into patches, of which blocks become one token. */
export interface InputGrid {
  readonly mode: 'resize' | 'pad';
  /** Pixels per side of the input, and of a patch. */
  readonly size: number;
  readonly patch: number;
  /** Patches per side of the block that becomes one token. */
  readonly block: number;
}

/**
 * A token grid on its picture, everything in pixels of the picture. Cell (row, col) covers x from `col * cell.width` to
 * `min((col + 1) * cell.width, covered.width)` of the canvas, and y alike: the last blocks may be cut, and a rest of the
 * input that fills no patch is seen by no cell.
 */
export interface CellGeometry {
  /** What the model was shown: the picture, and the padding around it. */
  readonly canvas: Size;
  /** Where the picture's top left corner lies on the canvas. */
  readonly picture: { readonly left: number; readonly top: number };
  readonly cell: Size;
  readonly covered: Size;
}

/** The geometry of the cells on a picture of `width` x `height`. */
export function cellGeometry({ width, height }: Size, { mode, size, patch, block }: InputGrid): CellGeometry {
  const side = Math.max(width, height);
  const canvas = mode === 'pad' ? { width: side, height: side } : { width, height };
  const picture = { left: Math.floor((canvas.width - width) / 2), top: Math.floor((canvas.height - height) / 2) };
  const whole = Math.floor(size / patch) * patch;
  const scaled = (pixels: number): Size => ({
    width: (pixels * canvas.width) / size,
    height: (pixels * canvas.height) / size,
  });
  return { canvas, picture, cell: scaled(patch * block), covered: scaled(whole) };
}
