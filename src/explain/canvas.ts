// One picture with its token cells drawn over it, at any size: the pixels of each cell, and cells filled with a color. The cells belong to one
// plane, or to several side by side. Does not know what the cells mean.

import type { CellGeometry, Size } from '../image/cells';

export interface Grid {
  readonly rows: number;
  readonly cols: number;
}

/** The cells of one plane on a canvas. */
export interface CanvasPart {
  readonly grid: Grid;
  readonly cells: CellGeometry;
  /** The top left corner of the plane's own canvas. */
  readonly left: number;
  readonly top: number;
  /** Index of its first cell; the others follow in raster order. */
  readonly first: number;
}

/** A picture that an SVG holds twice, in color and in gray, under `${id}-color` and `${id}-gray`. Lengths are its pixels. */
export interface CanvasPicture {
  readonly id: string;
  readonly width: number;
  readonly height: number;
  /** The drawn region: the picture with its surroundings, or the part of it that the model saw. */
  readonly canvas: Size;
  /** The picture's top left corner on the canvas. */
  readonly origin: { readonly left: number; readonly top: number };
  /** One plane, or several side by side. */
  readonly parts: readonly CanvasPart[];
}

export const cellCount = ({ parts }: Pick<CanvasPicture, 'parts'>): number =>
  parts.reduce((sum, { grid }) => sum + grid.rows * grid.cols, 0);

/** Cells of one color. */
export interface Fill {
  readonly cells: readonly number[];
  readonly color: string;
  readonly opacity: number;
  /** Whether each cell also has an edge of the unblended color. */
  readonly framed?: boolean;
}

export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** The largest scale at which the canvas fits into width x height. */
export function scaleInto({ canvas }: Pick<CanvasPicture, 'canvas'>, width: number, height: number): number {
  return Math.min(width / canvas.width, height / canvas.height);
}

/** The pixels of a cell at a scale, rounded to whole ones so that neighbors share an edge without a seam. */
export function cellBox({ parts }: Pick<CanvasPicture, 'parts'>, index: number, scale: number): Box {
  const part = parts.findLast(({ first }) => first <= index) as CanvasPart;
  const { grid, cells, left, top } = part;
  const cell = index - part.first;
  const edge = (begin: number, at: number, size: number, covered: number): number =>
    Math.round((begin + Math.min(at * size, covered)) * scale);
  const [across, down] = [
    (col: number): number => edge(left, col, cells.cell.width, cells.covered.width),
    (row: number): number => edge(top, row, cells.cell.height, cells.covered.height),
  ];
  const [row, col] = [Math.floor(cell / grid.cols), cell % grid.cols];
  const [x, y] = [across(col), down(row)];
  return { x, y, width: across(col + 1) - x, height: down(row + 1) - y };
}

/** SVG of the canvas with its top left corner at (x, y): padding, picture, fills. */
export function drawCanvas(
  picture: CanvasPicture,
  { x, y, scale, look, fills }: { x: number; y: number; scale: number; look: 'color' | 'gray'; fills: readonly Fill[] },
): string {
  const { canvas, origin } = picture;
  const visible = fills.filter(({ cells }) => cells.length > 0);
  const pixels = (length: number): number => Math.round(length * scale);
  const [width, height] = [pixels(canvas.width), pixels(canvas.height)];
  return [
    // Clipped at the edges: a tile or a crop shows only a part of the picture.
    `<svg x="${x}" y="${y}" width="${width}" height="${height}">`,
    `<rect width="${width}" height="${height}" fill="${PADDING}"/>`,
    // The picture is embedded in a unit square, at any size.
    `<use href="#${picture.id}-${look}" transform="translate(${pixels(origin.left)} ${pixels(origin.top)}) ` +
      `scale(${pixels(picture.width)} ${pixels(picture.height)})"/>`,
    ...visible.filter(({ framed }) => !framed).map((fill) => fillPath(picture, fill, scale)),
    ...picture.parts.map((part) => unseen(part, scale)),
    borders(picture, scale),
    // Drawn over the borders, so that a frame is fully visible.
    ...visible.filter(({ framed }) => framed).map((fill) => fillPath(picture, fill, scale)),
    '</svg>',
  ].join('');
}

export const PADDING = '#9a9a9a';

/** Fades the region right of and below all cells of a plane, which belongs to no cell. */
function unseen({ cells: { canvas, covered }, left, top }: CanvasPart, scale: number): string {
  const pixels = (length: number): number => Math.round(length * scale);
  const [width, height] = [pixels(left + canvas.width), pixels(top + canvas.height)];
  const [right, bottom] = [pixels(left + covered.width), pixels(top + covered.height)];
  if (right >= width && bottom >= height) return '';
  const path = `M${right} ${pixels(top)}H${width}V${height}H${pixels(left)}V${bottom}H${right}z`;
  return `<path d="${path}" fill="#ffffff" fill-opacity="0.8"/>`;
}

/** Thin lines where several planes meet. */
function borders({ canvas, parts }: CanvasPicture, scale: number): string {
  if (parts.length === 1) return '';
  const pixels = (length: number): number => Math.round(length * scale);
  const inside = (at: number, size: number): boolean => at > 0 && at < pixels(size);
  const lines = parts.flatMap(({ left, top, cells }) => {
    const [x, y] = [pixels(left), pixels(top)];
    return [
      inside(x, canvas.width) ? `M${x} ${y}V${pixels(top + cells.canvas.height)}` : '',
      inside(y, canvas.height) ? `M${x} ${y}H${pixels(left + cells.canvas.width)}` : '',
    ];
  });
  return `<path d="${lines.join('')}" stroke="#ffffff" stroke-width="${pixels(canvas.width) < 150 ? 0.5 : 1.5}" fill="none"/>`;
}

function fillPath(picture: CanvasPicture, { cells, color, opacity, framed = false }: Fill, scale: number): string {
  const boxes = cells.map((cell) => cellBox(picture, cell, scale));
  const inside =
    opacity === 0 ? '' : `<path d="${boxes.map(outline).join('')}" fill="${color}" fill-opacity="${opacity}"/>`;
  if (!framed) return inside;
  const edges = boxes.map((box) => outline(box) + outline(shrunk(box)));
  return `${inside}<path d="${edges.join('')}" fill="${color}" fill-rule="evenodd"/>`;
}

const outline = ({ x, y, width, height }: Box): string => `M${x} ${y}h${width}v${height}h${-width}z`;

/** The box inside an edge of 1/15 of its size, one to three pixels, so that a framed cell stays visible. */
function shrunk({ x, y, width, height }: Box): Box {
  const edge = Math.min(3, Math.max(1, Math.round(Math.min(width, height) / 15)));
  return { x: x + edge, y: y + edge, width: Math.max(0, width - 2 * edge), height: Math.max(0, height - 2 * edge) };
}
