// Shared by all plots of an evaluation: the names of settings, the colors, and the fonts.

import { FONT_FAMILIES } from '../image/fonts';
import { ratiosText } from './settings';
import type { MethodSummary } from './summary';

export const FONT = FONT_FAMILIES;
export const INK = '#222222';
export const FAINT = '#6b7280';
/** SparseVILA's marks; darker than the others, so that they also stand out in gray. */
export const HIGHLIGHT = '#c2410c';
export const PLAIN = '#7aa0c4';

export const CONFIG = {
  background: 'white',
  font: FONT,
  padding: 16,
  title: {
    fontSize: 16,
    subtitleFontSize: 12,
    subtitleColor: '#555',
    subtitleLineHeight: 16,
    anchor: 'start',
    offset: 16,
    subtitlePadding: 6,
  },
  axis: {
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: 'normal',
    gridColor: '#eee',
    domainColor: '#999',
    tickColor: '#999',
  },
  view: { stroke: null },
} as const;

/** The note that explains the two numbers after a method's name. */
export const RATIOS_NOTE = [
  '0.6/0.75: a share of 0.6 of the visual tokens is pruned before the decoder,',
  'and 0.75 of the rest are skipped while an answer is written',
];

/** The label of a curve: the method, and its positions and history if they differ between curves. */
export function lineOf({ method, positions, protocol }: MethodSummary): string {
  return `${method}${positions === 'compact' ? ', compact' : ''}${protocol === undefined ? '' : `, ${protocol}`}`;
}

/** `0.6/0.75`; nothing for dense. */
function ratiosOf(row: MethodSummary): string {
  return row.method === 'dense' ? '' : ratiosText(row);
}

/** `sparsevila 0.6/0.75`, followed by whatever else distinguishes settings. */
export function settingOf(row: MethodSummary): string {
  const { positions, protocol } = row;
  const ratios = ratiosOf(row);
  return `${row.method}${ratios === '' ? '' : ` ${ratios}`}${positions === 'compact' ? ', compact' : ''}${protocol === undefined ? '' : `, ${protocol}`}`;
}

export const isHighlighted = ({ method }: Pick<MethodSummary, 'method'>): boolean => method.startsWith('sparsevila');
