// The figure: rows of panels for each picture, with aligned headings and one legend. A pure function of numbers, texts and data URIs to SVG.

import { FONT_FAMILIES } from '../image/fonts';
import {
  canvasSize,
  type FigurePicture,
  keptPanel,
  legend,
  PANEL,
  type Panel,
  saliencePanel,
  turnPanel,
} from './panels';
import type { SheetAttention } from './sheets';
import { FAINT, INK, textAt, wrap } from './text';

export interface FigureTurn {
  readonly question: string;
  readonly answer: string;
  /** The attention to each picture; undefined before the picture was added. */
  readonly attended: readonly (SheetAttention | undefined)[];
}

/** An embedded picture, in color and in gray. */
export interface Embedded extends FigurePicture {
  readonly color: string;
  readonly gray: string;
  /** The part of the medium that it shows, printed above its panels; '' if that is obvious. */
  readonly label: string;
}

const MARGIN = 28;
const GAP = 26;
const MOST_COLUMNS = 5;
/** Maximum pixels of the SVG at twice its size; a higher figure, as of a long video, is scaled down. */
const LARGEST = 16_000;
const LINE = { heading: 20, answer: 19, note: 17 };
const FONT = { title: 16, heading: 15, answer: 14, note: 12 };

/** The figure as SVG. */
export function figure(title: string, pictures: readonly Embedded[], turns: readonly FigureTurn[]): string {
  const column = Math.max(PANEL.least, ...pictures.map((picture) => canvasSize(picture).width));
  const rows = pictures.map((picture, i) => panelsOf(picture, i, turns));
  const columns = Math.min(MOST_COLUMNS, Math.max(...rows.map(({ length }) => length)));
  const width = 2 * MARGIN + columns * column + (columns - 1) * GAP;
  const titles = wrap(title, width - 2 * MARGIN, FONT.title, 'bold', 3);
  let y = MARGIN;
  const parts: string[] = [];
  for (const line of titles) {
    if (line === '') continue;
    parts.push(textAt(MARGIN, y + FONT.title, line, { size: FONT.title, weight: 'bold' }));
    y += FONT.title + 8;
  }
  if (parts.length > 0) y += 10;
  for (const [i, panels] of rows.entries()) {
    const { label = '' } = pictures[i] ?? {};
    if (label !== '') {
      parts.push(textAt(MARGIN, y + FONT.heading, label, { size: FONT.heading, weight: 'bold', fill: FAINT }));
      y += LINE.heading + 4;
    }
    for (let first = 0; first < panels.length; first += columns) {
      const line = drawLine(panels.slice(first, first + columns), y, column);
      parts.push(line.svg);
      y += line.height + GAP;
    }
  }
  const entries = legend(pictures, turns, MARGIN, y + 4);
  parts.push(entries);
  const height = Math.ceil(entries === '' ? y - GAP + MARGIN : y + MARGIN);
  return document(width, height, pictures, parts);
}

/** The panels of one picture: its salience, its kept cells, and the turns since it was added. */
function panelsOf(picture: FigurePicture, index: number, turns: readonly FigureTurn[]): Panel[] {
  const seen = turns.flatMap(({ question, answer, attended }, turn) => {
    const look = attended[index];
    return look === undefined ? [] : [turnPanel(picture, turn + 1, { question, answer }, look)];
  });
  return [saliencePanel(picture), keptPanel(picture), ...seen].filter((panel) => panel !== undefined);
}

/** Panels side by side: all texts end at the same height, where the pictures begin. */
function drawLine(panels: readonly Panel[], y: number, column: number): { svg: string; height: number } {
  const texts = panels.map(({ heading, answer, note }) => ({
    heading: wrap(heading, column, FONT.heading, 'bold'),
    answer: answer === undefined ? [] : wrap(`→ ${answer}`, column, FONT.answer),
    note: wrap(note, column, FONT.note),
  }));
  const heights = texts.map(
    (text) => text.heading.length * LINE.heading + text.answer.length * LINE.answer + text.note.length * LINE.note,
  );
  const words = Math.max(...heights) + 4;
  const svg = panels.map((panel, i) => {
    const x = MARGIN + i * (column + GAP);
    const text = texts[i];
    let at = y + words - 4 - (heights[i] ?? 0);
    const write = (lines: readonly string[] = [], step: number, style: Parameters<typeof textAt>[3]): string =>
      lines
        .map((line) => {
          at += step;
          return textAt(x, at - 4, line, style);
        })
        .join('');
    return (
      write(text?.heading, LINE.heading, { size: FONT.heading, weight: 'bold' }) +
      write(text?.answer, LINE.answer, { size: FONT.answer, fill: INK }) +
      write(text?.note, LINE.note, { size: FONT.note, fill: FAINT }) +
      panel.body(x, y + words)
    );
  });
  return { svg: svg.join(''), height: words + Math.max(...panels.map(({ height }) => height)) };
}

function document(width: number, height: number, pictures: readonly Embedded[], parts: readonly string[]): string {
  const embedded = new Map(pictures.map((picture) => [picture.id, picture]));
  const images = [...embedded.values()].flatMap(({ id, color, gray }) => [
    `<image id="${id}-color" width="1" height="1" preserveAspectRatio="none" href="${color}"/>`,
    `<image id="${id}-gray" width="1" height="1" preserveAspectRatio="none" href="${gray}"/>`,
  ]);
  const scale = Math.min(1, LARGEST / height);
  const [shownWidth, shownHeight] = [Math.round(width * scale), Math.round(height * scale)];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${shownWidth}" height="${shownHeight}" ` +
    `viewBox="0 0 ${width} ${height}" font-family="${FONT_FAMILIES}">` +
    `<defs>${images.join('')}</defs><rect width="${width}" height="${height}" fill="#ffffff"/>${parts.join('')}</svg>`
  );
}
