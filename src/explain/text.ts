// Text in an SVG: escaped, measured, wrapped. Measured by the advance widths of DejaVu Sans, the packaged font and one of the widest, so that
// lines also fit in a substitute font.

/** Advance widths of U+0020 to U+007E in thousandths of the size: regular, bold. */
const REGULAR =
  '318 401 460 838 636 950 780 275 390 390 500 838 318 361 318 337 636 636 636 636 636 636 636 636 636 636 337 337 838 838 838 531 1000 684 686 698 770 632 575 775 752 295 295 656 557 863 748 787 603 787 695 635 611 732 684 989 685 611 685 390 337 390 838 500 500 613 635 550 635 615 352 635 634 278 278 579 278 974 634 612 635 635 411 521 392 634 592 818 592 592 525 636 337 636 838';
const BOLD =
  '348 456 521 838 696 1002 872 306 457 457 523 838 380 415 380 365 696 696 696 696 696 696 696 696 696 696 400 400 838 838 838 580 1000 774 762 734 830 683 683 821 837 372 372 775 637 995 837 850 733 850 770 720 682 812 774 1103 771 724 725 457 365 457 838 500 500 675 716 593 716 678 435 716 712 343 343 665 343 1042 712 687 716 716 493 595 478 712 652 924 645 652 582 712 365 712 838';
const WIDTHS = { regular: REGULAR.split(' ').map(Number), bold: BOLD.split(' ').map(Number) };
const OTHER = 700;
/** East Asian scripts and pictographs are a full em wide. */
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\u{1f000}-\u{3ffff}]/u;
/** XML allows no control characters, lone surrogates and the two noncharacters. */
const FORBIDDEN = /[\p{Cc}\p{Cs}\ufffe\uffff]/gu;

export type Weight = 'regular' | 'bold';

/** Normalizes a line: any run of white space becomes one blank. */
function clean(text: string): string {
  return text.replace(/\s+/g, ' ').replace(FORBIDDEN, '').trim();
}

/** `text` as XML character data or attribute value. */
export function escapeXml(text: string): string {
  const entities: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return text.replace(FORBIDDEN, ' ').replace(/[&<>"']/g, (character) => entities[character] ?? '');
}

/** Width in pixels at `size` pixels. */
export function textWidth(text: string, size: number, weight: Weight = 'regular'): number {
  let sum = 0;
  for (const character of text) {
    sum += WIDTHS[weight][character.charCodeAt(0) - 32] ?? (WIDE.test(character) ? 1000 : OTHER);
  }
  return (sum * size) / 1000;
}

/**
 * Lines of at most `width` pixels, broken at blanks, and inside a word that is longer than a line. If there are more than `most`, the last
 * one ends in an ellipsis.
 */
export function wrap(text: string, width: number, size: number, weight: Weight = 'regular', most = 6): string[] {
  const lines: string[] = [];
  let line = '';
  const fits = (candidate: string): boolean => textWidth(candidate, size, weight) <= width;
  for (const word of clean(text).split(' ')) {
    if (line !== '' && fits(`${line} ${word}`)) {
      line += ` ${word}`;
      continue;
    }
    // Chinese, Japanese and Korean text may break between any two characters, so such a word fills the line.
    const breaksAnywhere = WIDE.test(word.slice(0, 2)) && fits(`${line} ${word[0]}`);
    if (line !== '' && !breaksAnywhere) lines.push(line);
    line = line !== '' && breaksAnywhere ? `${line} ` : '';
    for (const character of word) {
      if (line !== '' && !fits(line + character)) {
        lines.push(line);
        line = '';
      }
      line += character;
    }
  }
  lines.push(line);
  if (lines.length <= most) return lines;
  const cut = [...(lines[most - 1] ?? '')];
  while (cut.length > 0 && !fits(`${cut.join('')}…`)) cut.pop();
  return [...lines.slice(0, most - 1), `${cut.join('').trimEnd()}…`];
}

export interface TextStyle {
  readonly size: number;
  readonly weight?: Weight;
  readonly fill?: string;
  readonly anchor?: 'start' | 'middle' | 'end';
}

/** One line of text; y is its baseline. */
export function textAt(
  x: number,
  y: number,
  text: string,
  { size, weight = 'regular', fill = INK, anchor = 'start' }: TextStyle,
): string {
  return (
    `<text x="${x}" y="${y}" font-size="${size}" font-weight="${weight === 'bold' ? 'bold' : 'normal'}" ` +
    `fill="${fill}" text-anchor="${anchor}">${escapeXml(text)}</text>`
  );
}

export const INK = '#1b1f24';
export const FAINT = '#5d6570';
