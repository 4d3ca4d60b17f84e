// Text in figures: what a question may contain, and where lines break.

import { escapeXml, textAt, textWidth, wrap } from '../../src/explain/text';

describe('escapeXml', () => {
  it.each([
    ['<b>&"\'', '&lt;b&gt;&amp;&quot;&#39;'],
    ['a\u0000b\u001b[31m\u0085', 'a b [31m '],
    ['half \ud800 pair', 'half   pair'],
    ['whole \u{1f600} pair', 'whole \u{1f600} pair'],
    ['\uffff\ufffe', '  '],
    ['Größe 漢字', 'Größe 漢字'],
  ])('%j', (text, expected) => {
    expect(escapeXml(text)).toBe(expected);
  });

  it('keeps a question from becoming markup', () => {
    const svg = textAt(1, 2, '</text><script>"', { size: 12, weight: 'bold' });
    expect(svg.match(/<(?!\/?text)/g)).toBeNull();
    expect(svg).toMatch(/^<text x="1" y="2" .*&lt;script&gt;&quot;<\/text>$/);
  });
});

describe('wrap', () => {
  it('breaks at blanks, so that no line exceeds the width', () => {
    const text = 'How many orange objects are there in the seventh row of the second picture?';
    const lines = wrap(text, 150, 15, 'bold', 99);
    expect(lines.join(' ')).toBe(text);
    expect(lines.length).toBeGreaterThan(3);
    for (const line of lines) expect(textWidth(line, 15, 'bold')).toBeLessThanOrEqual(150);
    // No line has room for the first word of the next line.
    for (const [i, line] of lines.entries())
      if (i > 0) expect(textWidth(`${lines[i - 1]} ${line.split(' ')[0]}`, 15, 'bold')).toBeGreaterThan(150);
  });

  it('breaks a word that is longer than a line, and text without blanks', () => {
    for (const word of ['x'.repeat(100), '漢'.repeat(40), '\u{1f600}'.repeat(40)]) {
      const lines = wrap(word, 200, 12, 'regular', 99);
      expect(lines.join('')).toBe(word);
      for (const line of lines) expect(textWidth(line, 12)).toBeLessThanOrEqual(200);
    }
  });

  it('fills a line with text that may break anywhere', () => {
    expect(wrap(`1. ${'漢'.repeat(12)}`, 100, 10, 'regular', 99)).toEqual(['1. 漢漢漢漢漢漢漢漢', '漢漢漢漢']);
    expect(wrap('12345678901234567 漢字', 100, 10, 'regular', 99)[1]).toMatch(/漢/);
  });

  it('ends in an ellipsis if there are too many lines', () => {
    const lines = wrap('one two three four five six seven eight nine ten', 60, 12, 'regular', 2);
    expect(lines).toHaveLength(2);
    expect(lines[1]).toMatch(/…$/);
    expect(textWidth(lines[1] ?? '', 12)).toBeLessThanOrEqual(60);
  });

  it('treats line breaks and tabs as blanks', () => {
    expect(wrap(' one\n\ttwo  three ', 1000, 12)).toEqual(['one two three']);
    expect(wrap('', 100, 12)).toEqual(['']);
  });
});

it('measures by the advance widths of DejaVu Sans', () => {
  expect(textWidth('ABC', 1000)).toBe(684 + 686 + 698);
  expect(textWidth('ABC', 1000, 'bold')).toBe(774 + 762 + 734);
  expect(textWidth('漢字', 10)).toBe(20);
});
