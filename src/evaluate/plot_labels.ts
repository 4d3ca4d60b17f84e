// What the pictures of an evaluation share: the names of settings, the colors, and the type.

import { FONT_FAMILIES } from '../image/fonts';
import { ratiosText } from './settings';
import type { MethodSummary } from './summary';

export const FONT = FONT_FAMILIES;
export const INK = '#222222';
export const FAINT = '#6b7280';
/** SparseVILA's marks; darker than the others', so that they stand out in gray too. */
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

/** What the two numbers behind a method's name mean. */
export const RATIOS_NOTE = [
  '0.6/0.75: a share of 0.6 of the visual tokens is pruned before the decoder,',
  'and 0.75 of the rest are skipped while an answer is written',
];

/** What tells the curves of a picture apart: the method, and how positions and history were treated where that differs. */
export function lineOf({ method, positions, protocol }: MethodSummary): string {
  return `${method}${positions === 'compact' ? ', compact' : ''}${protocol === undefined ? '' : `, ${protocol}`}`;
}

/** `0.6/0.75`; nothing for dense. */
function ratiosOf(row: MethodSummary): string {
  return row.method === 'dense' ? '' : ratiosText(row);
}

/** `sparsevila 0.6/0.75`, with what else tells settings apart. */
export function settingOf(row: MethodSummary): string {
  const { positions, protocol } = row;
  const ratios = ratiosOf(row);
  return `${row.method}${ratios === '' ? '' : ` ${ratios}`}${positions === 'compact' ? ', compact' : ''}${protocol === undefined ? '' : `, ${protocol}`}`;
}

export const isHighlighted = ({ method }: Pick<MethodSummary, 'method'>): boolean => method.startsWith('sparsevila');
