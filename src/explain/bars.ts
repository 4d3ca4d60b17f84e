// The color bars below pictures, which explain the colors. Does not know the pictures.

import { type ColorMap, plasma } from './color';
import { FAINT, textAt } from './text';

export const BAR = { gap: 12, height: 10 };
/** Distance from the picture's lower edge to the bottom of the labels. */
export const BAR_HEIGHT = BAR.gap + BAR.height + 22;
const BAR_LABEL = { size: 11, fill: FAINT };

export type Bar = (x: number, y: number, width: number) => string;

/** A bar of the map from 1/range to range times the average, which is in the middle. */
export function gradientBar(map: ColorMap, range: number): Bar {
  const steps = 64;
  return (x, y, width) => {
    const boxes = Array.from({ length: steps }, (_, i) => {
      const [from, to] = [Math.round((width * i) / steps), Math.round((width * (i + 1)) / steps)];
      return `<rect x="${x + from}" y="${y}" width="${to - from}" height="${BAR.height}" fill="${map(i / (steps - 1))}"/>`;
    });
    const middle = textAt(x + width / 2, y + BAR.height + 13, 'average', { ...BAR_LABEL, anchor: 'middle' });
    return boxes.join('') + middle + barLabels(x, y, width, `1/${range} or less`, `${range}× or more`);
  };
}

/** One box per number of layers. */
export function countBar(layers: number): Bar {
  return (x, y, width) => {
    const boxes = Array.from({ length: layers }, (_, i) => {
      const [from, to] = [Math.round((width * i) / layers), Math.round((width * (i + 1)) / layers)];
      return `<rect x="${x + from}" y="${y}" width="${to - from - (layers <= 12 ? 2 : 0)}" height="${BAR.height}" fill="${countColor(i + 1, layers)}"/>`;
    });
    return boxes.join('') + barLabels(x, y, width, 'in 1 layer', layers === 1 ? '' : `in all ${layers}`);
  };
}

function barLabels(x: number, y: number, width: number, low: string, high: string): string {
  const below = y + BAR.height + 13;
  return textAt(x, below, low, BAR_LABEL) + textAt(x + width, below, high, { ...BAR_LABEL, anchor: 'end' });
}

/** From a purple that is distinguishable from the veils to yellow. */
export const countColor = (count: number, layers: number): string =>
  plasma(layers === 1 ? 0.8 : 0.3 + (0.7 * (count - 1)) / (layers - 1));
