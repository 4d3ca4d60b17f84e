// One picture with its token cells drawn over it, at any size: which pixels a cell covers, and cells filled with a colour.
// Knows nothing of what the cells mean.

import type { CellGeometry } from '../image/cells';

export interface Grid {
  readonly rows: number;
  readonly cols: number;
}

/** A picture that an SVG holds twice, in colour and in grey, under `${id}-colour` and `${id}-grey`. */
export interface CanvasPicture {
  readonly id: string;
  /** Pixels of the picture. */
  readonly width: number;
  readonly height: number;
  readonly grid: Grid;
  readonly cells: CellGeometry;
}

/** Cells of one colour, as raster indices. */
export interface Fill {
  readonly cells: readonly number[];
  readonly colour: string;
  readonly opacity: number;
  /** Whether each cell also has an edge of the full colour. */
  readonly framed?: boolean;
}

export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** The largest scale at which the canvas fits into width x height. */
export function scaleInto({ canvas }: CellGeometry, width: number, height: number): number {
  return Math.min(width / canvas.width, height / canvas.height);
}

/** The pixels that a cell covers at a scale: whole ones, so that neighbours share an edge and leave no seam. */
export function cellBox({ grid, cells }: Pick<CanvasPicture, 'grid' | 'cells'>, cell: number, scale: number): Box {
  const edge = (index: number, size: number, covered: number): number =>
    Math.round(Math.min(index * size, covered) * scale);
  const [row, col] = [Math.floor(cell / grid.cols), cell % grid.cols];
  const [x, y] = [edge(col, cells.cell.width, cells.covered.width), edge(row, cells.cell.height, cells.covered.height)];
  return {
    x,
    y,
    width: edge(col + 1, cells.cell.width, cells.covered.width) - x,
    height: edge(row + 1, cells.cell.height, cells.covered.height) - y,
  };
}

/** SVG of the canvas with its top left corner at (x, y): padding, picture, fills. */
export function drawCanvas(
  picture: CanvasPicture,
  {
    x,
    y,
    scale,
    look,
    fills,
  }: { x: number; y: number; scale: number; look: 'colour' | 'grey'; fills: readonly Fill[] },
): string {
  const { canvas, picture: at } = picture.cells;
  const pixels = (length: number): number => Math.round(length * scale);
  const [width, height] = [pixels(canvas.width), pixels(canvas.height)];
  return [
    // Cut off at the edges: a tile or a crop shows a part of the picture only.
    `<svg x="${x}" y="${y}" width="${width}" height="${height}">`,
    `<rect width="${width}" height="${height}" fill="${PADDING}"/>`,
    // The picture is held at some size of its own in a unit square.
    `<use href="#${picture.id}-${look}" transform="translate(${pixels(at.left)} ${pixels(at.top)}) ` +
      `scale(${pixels(picture.width)} ${pixels(picture.height)})"/>`,
    ...fills.filter(({ cells }) => cells.length > 0).map((fill) => fillPath(picture, fill, scale)),
    unseen(picture, scale),
    '</svg>',
  ].join('');
}

export const PADDING = '#9a9a9a';

/** What lies right of and below all cells is seen by none: faded. */
function unseen({ cells: { canvas, covered } }: CanvasPicture, scale: number): string {
  const [width, height] = [Math.round(canvas.width * scale), Math.round(canvas.height * scale)];
  const [right, bottom] = [Math.round(covered.width * scale), Math.round(covered.height * scale)];
  if (right >= width && bottom >= height) return '';
  return `<path d="M${right} 0H${width}V${height}H0V${bottom}H${right}z" fill="#ffffff" fill-opacity="0.8"/>`;
}

function fillPath(picture: CanvasPicture, { cells, colour, opacity, framed = false }: Fill, scale: number): string {
  const boxes = cells.map((cell) => cellBox(picture, cell, scale));
  const inside =
    opacity === 0 ? '' : `<path d="${boxes.map(outline).join('')}" fill="${colour}" fill-opacity="${opacity}"/>`;
  if (!framed) return inside;
  const edges = boxes.map((box) => outline(box) + outline(shrunk(box)));
  return `${inside}<path d="${edges.join('')}" fill="${colour}" fill-rule="evenodd"/>`;
}

const outline = ({ x, y, width, height }: Box): string => `M${x} ${y}h${width}v${height}h${-width}z`;

/** The box inside an edge of a fifteenth of it, one to three pixels: what is framed stays visible. */
function shrunk({ x, y, width, height }: Box): Box {
  const edge = Math.min(3, Math.max(1, Math.round(Math.min(width, height) / 15)));
  return { x: x + edge, y: y + edge, width: Math.max(0, width - 2 * edge), height: Math.max(0, height - 2 * edge) };
}
