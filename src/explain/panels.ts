// The panels of a figure: a heading, a picture with its cells, and what explains its colours. Knows what the cells mean, and
// nothing about where a panel stands.

import { type CanvasPicture, drawCanvas, type Fill, scaleInto } from './canvas';
import { type ColourMap, plasma, viridis } from './colour';
import { type Look, layerCounts } from './look';
import { FAINT, textAt, textWidth } from './text';

/** What is known of a picture. */
export interface FigurePicture extends CanvasPicture {
  readonly kept: Int32Array;
  readonly salience: Float32Array | undefined;
}

export interface Panel {
  readonly heading: string;
  /** What the model said, under the heading. */
  readonly answer?: string;
  readonly note: string;
  /** SVG below the text, its top left corner at (x, y), and its height. */
  readonly body: (x: number, y: number) => string;
  readonly height: number;
}

/** Sizes in pixels. */
export const PANEL = { width: 340, height: 440, least: 250 };
const BAR = { gap: 12, height: 10, label: 11 };
const BAR_HEIGHT = BAR.gap + BAR.height + 18;

/** Veils over grey or colour: a cell that was pruned, and one that was kept and not retrieved. */
const PRUNED = { colour: '#0b0d12', opacity: 0.78 };
const IDLE = { colour: '#0b0d12', opacity: 0.4 };

export function saliencePanel(picture: FigurePicture): Panel | undefined {
  const { salience } = picture;
  if (salience === undefined) return undefined;
  return {
    heading: 'Salience',
    note: 'attention in the vision tower, before any question',
    ...heatBody(picture, salience, all(salience.length), viridis),
  };
}

export function keptPanel(picture: FigurePicture): Panel {
  const { kept, grid } = picture;
  const tokens = grid.rows * grid.cols;
  return {
    heading: kept.length === tokens ? `All ${tokens} cells kept` : `${kept.length} of ${tokens} cells kept`,
    note: kept.length === tokens ? 'nothing is pruned' : 'the dark ones are pruned before the decoder',
    body: (x, y) => draw(picture, x, y, 'colour', [{ ...PRUNED, cells: prunedCells(picture) }]),
    height: bodyHeight(picture),
  };
}

/** One turn on one picture: which cells its layers retrieved, or how relevant they were where all are attended. */
export function turnPanel(
  picture: FigurePicture,
  number: number,
  turn: { question: string; answer: string },
  look: Look,
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
    note: `${everything}; colour is relevance to the question`,
    body: (x, y) => whole.body(x, y) + small.body(x, y + whole.height),
    height: whole.height + small.height,
  };
}

function retrievedBody(
  picture: FigurePicture,
  retrieved: readonly (readonly number[])[],
): Pick<Panel, 'note' | 'body' | 'height'> {
  const counts = layerCounts(retrieved, picture.grid.rows * picture.grid.cols);
  const any = counts.filter((count) => count > 0).length;
  const [least, most] = [
    Math.min(...retrieved.map(({ length }) => length)),
    Math.max(...retrieved.map(({ length }) => length)),
  ];
  const layers = retrieved.length;
  const fills = retrievedFills(picture, counts, (count) => countColour(count, layers));
  const small = multiples(
    picture,
    retrieved.map((cells) => retrievedFills(picture, layerCounts([cells], counts.length), () => plasma(0.8))),
  );
  const bar = countBar(layers);
  const top = bodyHeight(picture);
  return {
    note: `${least === most ? least : `${least} to ${most}`} of ${picture.kept.length} retrieved in a layer, ${any} in any`,
    body: (x, y) =>
      draw(picture, x, y, 'grey', fills) +
      bar(x, y + top + BAR.gap, canvasSize(picture).width) +
      small.body(x, y + top + BAR_HEIGHT),
    height: top + BAR_HEIGHT + small.height,
  };
}

/** Grey where nothing was retrieved, darker where it was pruned, coloured by `colour` of the count elsewhere. */
function retrievedFills(picture: FigurePicture, counts: Int32Array, colour: (count: number) => string): Fill[] {
  const byCount = new Map<number, number[]>();
  for (const cell of picture.kept) {
    const count = counts[cell] ?? 0;
    byCount.set(count, [...(byCount.get(count) ?? []), cell]);
  }
  const fills = [...byCount].map(([count, cells]) =>
    count === 0 ? { ...IDLE, cells } : { cells, colour: colour(count), opacity: 0.72 },
  );
  return [{ ...PRUNED, cells: prunedCells(picture) }, ...fills];
}

/** From the blue that is still told from grey to yellow. */
const countColour = (count: number, layers: number): string =>
  plasma(layers === 1 ? 0.8 : 0.12 + (0.88 * (count - 1)) / (layers - 1));

/** Every cell coloured by its value, largest brightest, and the scale in multiples of the average. */
function heatBody(
  picture: FigurePicture,
  values: Float32Array,
  cells: readonly number[],
  map: ColourMap,
): Pick<Panel, 'body' | 'height'> {
  const fills = heatFills(picture, values, cells, map);
  const { most, mean } = scaleOf(values, cells);
  const top = bodyHeight(picture);
  const times = mean === 0 ? 0 : most / mean;
  const bar = gradientBar(map, ['0', `${times.toFixed(times < 10 ? 1 : 0)}× the average cell`]);
  return {
    body: (x, y) => draw(picture, x, y, 'grey', fills) + bar(x, y + top + BAR.gap, canvasSize(picture).width),
    height: top + BAR_HEIGHT,
  };
}

function heatFills(picture: FigurePicture, values: Float32Array, cells: readonly number[], map: ColourMap): Fill[] {
  const { most } = scaleOf(values, cells);
  const byColour = new Map<string, number[]>();
  for (const cell of cells) {
    const colour = map(most === 0 ? 0 : (values[cell] ?? 0) / most);
    byColour.set(colour, [...(byColour.get(colour) ?? []), cell]);
  }
  const heat = [...byColour].map(([colour, coloured]) => ({ cells: coloured, colour, opacity: 0.72 }));
  return cells.length === values.length ? heat : [{ ...PRUNED, cells: prunedCells(picture) }, ...heat];
}

function scaleOf(values: Float32Array, cells: readonly number[]): { most: number; mean: number } {
  const shown = cells.map((cell) => values[cell] ?? 0);
  return {
    most: Math.max(0, ...shown),
    mean: shown.reduce((sum, value) => sum + value, 0) / Math.max(1, shown.length),
  };
}

/** A small canvas per layer, numbered. */
function multiples(
  picture: FigurePicture,
  layers: readonly (readonly Fill[])[],
): { body: Panel['body']; height: number } {
  const columns = layers.length <= 4 ? 4 : layers.length <= 12 ? 6 : 8;
  const gap = 6;
  const label = 15;
  const width = (canvasSize(picture).width - (columns - 1) * gap) / columns;
  const scale = width / picture.cells.canvas.width;
  const step = Math.ceil(picture.cells.canvas.height * scale) + label + gap;
  return {
    body: (x, y) =>
      layers
        .map((fills, layer) => {
          const left = Math.round(x + (layer % columns) * (width + gap));
          const top = Math.round(y + Math.floor(layer / columns) * step);
          const name = layers.length <= 4 ? `layer ${layer}` : String(layer);
          return (
            textAt(left, top + 11, name, { size: 11, fill: FAINT }) +
            drawCanvas(picture, { x: left, y: top + label, scale, look: 'grey', fills })
          );
        })
        .join(''),
    height: Math.ceil(layers.length / columns) * step,
  };
}

type Bar = (x: number, y: number, width: number) => string;

function gradientBar(map: ColourMap, [low, high]: readonly [string, string]): Bar {
  const steps = 64;
  return (x, y, width) => {
    const boxes = Array.from({ length: steps }, (_, i) => {
      const [from, to] = [Math.round((width * i) / steps), Math.round((width * (i + 1)) / steps)];
      return `<rect x="${x + from}" y="${y}" width="${to - from}" height="${BAR.height}" fill="${map(i / (steps - 1))}"/>`;
    });
    return boxes.join('') + barLabels(x, y, width, low, high);
  };
}

/** One box per number of layers. */
function countBar(layers: number): Bar {
  return (x, y, width) => {
    const boxes = Array.from({ length: layers }, (_, i) => {
      const [from, to] = [Math.round((width * i) / layers), Math.round((width * (i + 1)) / layers)];
      return `<rect x="${x + from}" y="${y}" width="${to - from - (layers <= 12 ? 2 : 0)}" height="${BAR.height}" fill="${countColour(i + 1, layers)}"/>`;
    });
    return boxes.join('') + barLabels(x, y, width, 'in 1 layer', layers === 1 ? '' : `in all ${layers}`);
  };
}

function barLabels(x: number, y: number, width: number, low: string, high: string): string {
  const style = { size: BAR.label, fill: FAINT };
  const below = y + BAR.height + 13;
  return textAt(x, below, low, style) + textAt(x + width, below, high, { ...style, anchor: 'end' });
}

const all = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

function prunedCells({ kept, grid }: FigurePicture): number[] {
  const alive = new Set(kept);
  return all(grid.rows * grid.cols).filter((cell) => !alive.has(cell));
}

const panelScale = ({ cells }: FigurePicture): number => scaleInto(cells, PANEL.width, PANEL.height);

export function canvasSize(picture: FigurePicture): { width: number; height: number } {
  const scale = panelScale(picture);
  const { width, height } = picture.cells.canvas;
  return { width: Math.round(width * scale), height: Math.round(height * scale) };
}

const bodyHeight = (picture: FigurePicture): number => canvasSize(picture).height;

function draw(picture: FigurePicture, x: number, y: number, look: 'colour' | 'grey', fills: readonly Fill[]): string {
  return drawCanvas(picture, { x, y, scale: panelScale(picture), look, fills });
}

/** The legend's entries, in one line: a swatch and its words. */
export function legend(x: number, y: number): { svg: string; width: number } {
  const entries = [
    [IDLE, 'kept, not retrieved by this turn'],
    [PRUNED, 'pruned before the decoder'],
  ] as const;
  let at = x;
  const svg = entries.map(([{ colour, opacity }, words]) => {
    const left = at;
    at += 20 + textWidth(words, 12) + 24;
    return (
      `<rect x="${left}" y="${y - 11}" width="14" height="14" fill="#b9bcc0"/>` +
      `<rect x="${left}" y="${y - 11}" width="14" height="14" fill="${colour}" fill-opacity="${opacity}"/>` +
      textAt(left + 20, y, words, { size: 12, fill: FAINT })
    );
  });
  return { svg: svg.join(''), width: at - x };
}
