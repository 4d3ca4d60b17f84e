// The panels of a figure: a heading, a picture with its cells, and the explanation of its colors. Knows the meaning of the cells, but not the
// location of a panel.

import { layerCounts } from './attended';
import { BAR, BAR_HEIGHT, countBar, countColor, gradientBar } from './bars';
import { type CanvasPicture, cellCount, drawCanvas, type Fill, PADDING, scaleInto } from './canvas';
import { type ColorMap, plasma, viridis } from './color';
import type { SheetAttention } from './sheets';
import { FAINT, textAt, textWidth } from './text';

/** The data of a picture. */
export interface FigurePicture extends CanvasPicture {
  readonly kept: Int32Array;
  readonly salience: Float32Array | undefined;
}

export interface Panel {
  readonly heading: string;
  /** The model's answer, below the heading. */
  readonly answer?: string;
  readonly note: string;
  /** SVG below the text, its top left corner at (x, y), and its height. */
  readonly body: (x: number, y: number) => string;
  readonly height: number;
}

/** Sizes in pixels. */
export const PANEL = { width: 340, height: 440, least: 250 };

/** Veils over gray or color: a cell that was pruned, and one that was kept and not retrieved. */
const PRUNED = { color: '#0b0d12', opacity: 0.78 };
const IDLE = { color: '#0b0d12', opacity: 0.5 };
/** Opacity of a cell's color over the picture. */
const HEAT = 0.62;

export function saliencePanel(picture: FigurePicture): Panel | undefined {
  const { salience } = picture;
  if (salience === undefined) return undefined;
  return {
    heading: 'Salience',
    note: `attention in the vision tower: ${spread(salience, all(salience.length))}`,
    ...heatBody(picture, salience, all(salience.length), viridis),
  };
}

export function keptPanel(picture: FigurePicture): Panel {
  const { kept } = picture;
  const tokens = cellCount(picture);
  return {
    heading: kept.length === tokens ? `All ${tokens} cells kept` : `${kept.length} of ${tokens} cells kept`,
    note:
      kept.length === tokens ? 'nothing is pruned before the decoder' : 'the dark ones are pruned, whatever is asked',
    body: (x, y) => draw(picture, x, y, 'color', [{ ...PRUNED, cells: prunedCells(picture) }]),
    height: bodyHeight(picture),
  };
}

/** One turn on one picture: the cells that its layers retrieved, or their relevance if all are attended. */
export function turnPanel(
  picture: FigurePicture,
  number: number,
  turn: { question: string; answer: string },
  look: SheetAttention,
): Panel {
  const words = { heading: `${number}. ${turn.question}`, answer: turn.answer };
  const { retrieved, relevance } = look;
  if (retrieved !== undefined) return { ...words, ...retrievedBody(picture, retrieved) };
  const everything = 'every kept cell is attended';
  if (relevance === undefined)
    return { ...words, note: everything, body: keptPanel(picture).body, height: bodyHeight(picture) };
  const mean = relevance[0]?.map(
    (_, cell) => relevance.reduce((sum, layer) => sum + (layer[cell] ?? 0), 0) / relevance.length,
  );
  const kept = Array.from(picture.kept);
  const whole = heatBody(picture, mean ?? new Float32Array(), kept, plasma);
  const small = multiples(
    picture,
    relevance.map((layer) => heatFills(picture, layer, kept, plasma)),
  );
  return {
    ...words,
    note: `all attended; relevance to the question: ${spread(mean ?? new Float32Array(), kept)}`,
    body: (x, y) => whole.body(x, y) + small.body(x, y + whole.height),
    height: whole.height + small.height,
  };
}

function retrievedBody(
  picture: FigurePicture,
  retrieved: readonly (readonly number[])[],
): Pick<Panel, 'note' | 'body' | 'height'> {
  const counts = layerCounts(retrieved, cellCount(picture));
  const any = counts.filter((count) => count > 0).length;
  const [least, most] = [
    Math.min(...retrieved.map(({ length }) => length)),
    Math.max(...retrieved.map(({ length }) => length)),
  ];
  const layers = retrieved.length;
  const fills = retrievedFills(picture, counts, (count) => ({
    color: countColor(count, layers),
    opacity: 0,
    framed: true,
  }));
  const small = multiples(
    picture,
    retrieved.map((cells) =>
      retrievedFills(picture, layerCounts([cells], counts.length), () => ({
        color: plasma(0.8),
        opacity: 0,
        framed: true,
      })),
    ),
    'color',
  );
  const bar = countBar(layers);
  const top = bodyHeight(picture);
  return {
    note: `${least === most ? least : `${least} to ${most}`} of ${picture.kept.length} attended in a layer, ${any} in any`,
    body: (x, y) =>
      draw(picture, x, y, 'color', fills) +
      bar(x, y + top + BAR.gap, canvasSize(picture).width) +
      small.body(x, y + top + BAR_HEIGHT),
    height: top + BAR_HEIGHT + small.height,
  };
}

/** Dark where nothing was retrieved, darker where the cell was pruned, otherwise `paint` of the count. */
function retrievedFills(
  picture: FigurePicture,
  counts: Int32Array,
  paint: (count: number) => Omit<Fill, 'cells'>,
): Fill[] {
  const byCount = groupBy(Array.from(picture.kept), (cell) => counts[cell] ?? 0);
  const fills = [...byCount].map(([count, cells]) => ({ ...(count === 0 ? IDLE : paint(count)), cells }));
  return [{ ...PRUNED, cells: prunedCells(picture) }, ...fills];
}

function groupBy<Key>(cells: readonly number[], keyOf: (cell: number) => Key): Map<Key, number[]> {
  const groups = new Map<Key, number[]>();
  for (const cell of cells) {
    const key = keyOf(cell);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [cell]);
    else group.push(cell);
  }
  return groups;
}

/**
 * Every cell colored by its value in multiples of the average, on the same scale in every picture: if all cells are nearly equal, all have
 * nearly the color of the average.
 */
function heatBody(
  picture: FigurePicture,
  values: Float32Array,
  cells: readonly number[],
  map: ColorMap,
): Pick<Panel, 'body' | 'height'> {
  const fills = heatFills(picture, values, cells, map);
  const top = bodyHeight(picture);
  const bar = gradientBar(map, RANGE);
  return {
    body: (x, y) => draw(picture, x, y, 'gray', fills) + bar(x, y + top + BAR.gap, canvasSize(picture).width),
    height: top + BAR_HEIGHT,
  };
}

function heatFills(picture: FigurePicture, values: Float32Array, cells: readonly number[], map: ColorMap): Fill[] {
  const mean = meanOf(values, cells);
  const byColor = groupBy(cells, (cell) => map(heat(mean === 0 ? 0 : (values[cell] ?? 0) / mean)));
  const fills = [...byColor].map(([color, colored]) => ({ cells: colored, color, opacity: HEAT }));
  return cells.length === values.length ? fills : [{ ...PRUNED, cells: prunedCells(picture) }, ...fills];
}

/** The colors range from 1/RANGE to RANGE times the average; values outside are clamped. */
const RANGE = 8;

/** Maps `times` the average to the scale from 0 to 1: logarithmic, with the average in the middle. */
function heat(times: number): number {
  if (times <= 1 / RANGE) return 0;
  return Math.min(1, 0.5 + Math.log(times) / Math.log(RANGE) / 2);
}

function meanOf(values: Float32Array, cells: readonly number[]): number {
  return cells.reduce((sum, cell) => sum + (values[cell] ?? 0), 0) / Math.max(1, cells.length);
}

/** The range from the weakest to the strongest cell, in multiples of the average. */
function spread(values: Float32Array, cells: readonly number[]): string {
  const mean = meanOf(values, cells);
  if (mean === 0) return 'none';
  let [least, most] = [Number.POSITIVE_INFINITY, 0];
  for (const cell of cells) {
    const value = values[cell] ?? 0;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const times = (value: number): string => (value / mean).toFixed(value < 10 * mean ? 2 : 0);
  return `${times(least)}× to ${times(most)}× the average`;
}

/** A small canvas per layer, numbered. */
function multiples(
  picture: FigurePicture,
  layers: readonly (readonly Fill[])[],
  look: 'color' | 'gray' = 'gray',
): { body: Panel['body']; height: number } {
  const columns = layers.length <= 4 ? 4 : layers.length <= 12 ? 6 : 8;
  const gap = 6;
  const label = 15;
  const width = (canvasSize(picture).width - (columns - 1) * gap) / columns;
  const scale = width / picture.canvas.width;
  const step = Math.ceil(picture.canvas.height * scale) + label + gap;
  const write = (x: number, y: number, words: string): string => textAt(x, y + 11, words, { size: 11, fill: FAINT });
  const roomy = layers.length <= 4;
  const first = roomy ? 0 : label;
  return {
    body: (x, y) => {
      const drawn = layers.map((fills, layer) => {
        const left = Math.round(x + (layer % columns) * (width + gap));
        const top = Math.round(y + first + Math.floor(layer / columns) * step);
        const canvas = drawCanvas(picture, { x: left, y: top + label, scale, look, fills });
        return write(left, top, roomy ? `layer ${layer}` : String(layer)) + canvas;
      });
      return (roomy ? '' : write(x, y, 'layer by layer')) + drawn.join('');
    },
    height: first + Math.ceil(layers.length / columns) * step,
  };
}

const all = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

function prunedCells(picture: FigurePicture): number[] {
  const kept = new Set(picture.kept);
  return all(cellCount(picture)).filter((cell) => !kept.has(cell));
}

const panelScale = (picture: FigurePicture): number => scaleInto(picture, PANEL.width, PANEL.height);

export function canvasSize(picture: FigurePicture): { width: number; height: number } {
  const scale = panelScale(picture);
  const { width, height } = picture.canvas;
  return { width: Math.round(width * scale), height: Math.round(height * scale) };
}

const bodyHeight = (picture: FigurePicture): number => canvasSize(picture).height;

function draw(picture: FigurePicture, x: number, y: number, look: 'color' | 'gray', fills: readonly Fill[]): string {
  return drawCanvas(picture, { x, y, scale: panelScale(picture), look, fills });
}

/** One line that explains the dark cells of turns; empty if there are none. */
export function legend(
  pictures: readonly FigurePicture[],
  turns: readonly { readonly attended: readonly (SheetAttention | undefined)[] }[],
  x: number,
  y: number,
): string {
  const pruned = pictures.some((picture) => prunedCells(picture).length > 0);
  const padded = pictures.some(
    // More than the rounding of tile sizes accounts for.
    ({ width, height, canvas }) => canvas.width > width + 0.5 || canvas.height > height + 0.5,
  );
  const idle = turns.some(({ attended }) => attended.some((look) => look?.retrieved !== undefined));
  let at = x;
  const entry = (words: string, { color, opacity }: Omit<Fill, 'cells'>): string => {
    const left = at;
    at += 20 + textWidth(words, 12) + 24;
    return (
      `<rect x="${left}" y="${y - 11}" width="14" height="14" fill="#b9bcc0"/>` +
      `<rect x="${left}" y="${y - 11}" width="14" height="14" fill="${color}" fill-opacity="${opacity}"/>` +
      textAt(left + 20, y, words, { size: 12, fill: FAINT })
    );
  };
  return [
    idle ? entry('kept, not attended by this answer', IDLE) : '',
    pruned ? entry('pruned before the decoder', PRUNED) : '',
    padded ? entry('padding around the picture', { color: PADDING, opacity: 1 }) : '',
  ].join('');
}
