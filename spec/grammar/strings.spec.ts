// Automata of patterns, formats and numbers, against JavaScript's own regular expressions and arithmetic.

import Ajv from 'ajv/dist/2020';
import addFormats from 'ajv-formats';
import { accepts, alive, allBut, both, complement, lengths } from '../../src/grammar/automaton';
import { FORMATS } from '../../src/grammar/formats';
import { numberAutomaton } from '../../src/grammar/numbers';
import { patternAutomaton } from '../../src/grammar/pattern';
import { uniform } from '../../src/text/random';
import { errorOf } from '../image/fixtures';

const ALPHABET = [...'abcxyzAZ019_-. \n\t"\\@é你👍^$+*(){}[]|?\u2028\ufeff'];

/** Random texts over an alphabet of awkward characters. */
function texts(seed: number, count: number): string[] {
  const random = uniform(seed);
  return Array.from({ length: count }, () =>
    Array.from({ length: Math.floor(random() * 7) }, () => ALPHABET[Math.floor(random() * ALPHABET.length)]).join(''),
  );
}

it.each([
  ...[
    '',
    '^$',
    'a',
    '^a',
    'a$',
    '^ab?c*$',
    '^a|b$',
    '(a|b)+c',
    '^.$',
    '^[^a]$',
    '^[a-c\\d]+$',
    '^\\w\\W\\s\\S\\D$',
    '^a{2}$',
  ],
  ...[
    '^a{1,3}b{2,}$',
    '^(?:ab|c)*$',
    '^(a*)*$',
    '^\\x61\\u0062\\u{63}$',
    '^[\\b\\]\\-^]$',
    '^[a-]$',
    '^\\.\\+\\(\\\\$',
    '👍+',
    '^[é-你]$',
  ],
  ...[
    '^(?!a)',
    '^(?=.*9)[a-z0-9]+$',
    '^(?!.*\\.\\.)[a.]+$',
    '^a+?b$',
    '^(?<year>a)b$',
    '^$|a',
    '[\\s]',
    '^[^\\s"]+$',
    '\\t|\\n',
  ],
])('the pattern %j accepts what RegExp finds', (pattern) => {
  const automaton = patternAutomaton(pattern);
  const expression = new RegExp(pattern, 'u');
  const own = [...'abc9'].flatMap((a) => [...'ab.c'].flatMap((b) => [a, a + b, a + a + b, a + b + b + a]));
  const all = ['', ...own, ...texts(5, 3000)];
  expect(all.filter((text) => accepts(automaton, text) !== expression.test(text))).toEqual([]);
});

it.each([
  ['(', 'no regular expression'],
  ['a(?=b)', 'look-ahead after the beginning'],
  ['(?<=a)b', 'look-behind'],
  ['(a)\\1', 'escape'],
  ['\\bword', 'word boundary'],
  ['\\p{L}', 'Unicode property'],
  ['(^a|b)', 'a beginning (^) inside'],
  ['(a$|b)', 'an end ($) inside'],
  ['^(((((a{1,99}){1,99}){1,99}){1,99}){1,99})$', 'states'],
  [`^(${'a?'.repeat(300)}){300}$`, 'states'],
  ['(a|b)*a(a|b){18}$', 'states'],
  [`${'('.repeat(200)}a${')'.repeat(200)}`, 'nested groups'],
])('the pattern %j is refused by name, in bounded time', async (pattern, message) => {
  const error = await errorOf(async () => patternAutomaton(pattern));
  expect([error.code, error.message]).toEqual(['ERR_OPTION_INVALID', expect.stringContaining(message)]);
});

it('intersection, complement, lengths and exceptions follow their definitions', () => {
  const one = patternAutomaton('^[ab]*$');
  const other = patternAutomaton('b');
  for (const text of ['', 'a', 'b', 'ab', 'ba9', '9', '👍b', ...texts(9, 500)]) {
    const length = [...text].length;
    expect(accepts(both(one, other), text)).toBe(accepts(one, text) && accepts(other, text));
    expect(accepts(complement(one), text)).toBe(!accepts(one, text));
    expect(accepts(lengths(1, 3), text)).toBe(length >= 1 && length <= 3);
    expect(accepts(allBut(['', 'ab', 'a']), text)).toBe(!['', 'ab', 'a'].includes(text));
  }
  expect(alive(both(one, patternAutomaton('c')))[0]).toBe(false);
});

/** A random text that an automaton accepts; undefined after too many characters. */
function randomText({ states }: ReturnType<typeof patternAutomaton>, random: () => number): string | undefined {
  let text = '';
  let state = 0;
  for (let steps = 0; steps < 400; steps++) {
    const { isFinal, moves } = states[state] as (typeof states)[number];
    if (moves.length === 0 || (isFinal && random() < 0.2)) return isFinal ? text : undefined;
    const { from, to, next } = moves[Math.floor(random() * moves.length)] as (typeof moves)[number];
    text += String.fromCodePoint(from + Math.floor(random() * (to - from + 1)));
    state = next;
  }
  return undefined;
}

it.each(Object.keys(FORMATS))('the format %s is what a validator takes for it', (format) => {
  const ajv = new Ajv();
  addFormats(ajv);
  const isValid = ajv.compile({ type: 'string', format });
  const random = uniform(3);
  const automaton = patternAutomaton(FORMATS[format] as string);
  const found = Array.from({ length: 300 }, () => randomText(automaton, random)).filter((text) => text !== undefined);
  expect(found.length).toBeGreaterThan(50);
  expect(found.filter((text) => !isValid(text))).toEqual([]);
});

describe('numbers within bounds', () => {
  const bounds = { isInteger: false, min: -Infinity, max: Infinity, isAboveMin: false, isBelowMax: false, divisor: 1 };
  const cases = [
    { min: 0 },
    { min: 0, isAboveMin: true },
    { max: 0 },
    { max: 0, isBelowMax: true },
    { min: -1.5, max: 7.25 },
    { min: 0.1 + 0.2, max: 1, isAboveMin: true, isBelowMax: true },
    { min: 1e-7, max: 1.5e-7 },
    { min: -20, max: -3, isBelowMax: true },
    { isInteger: true, min: 9, max: 101 },
    { isInteger: true, min: -7, max: 7, divisor: 3 },
    { isInteger: true, min: 0.5, max: 2.5 },
    { isInteger: true, divisor: 12 },
    { min: 999999999999, max: 1e12 },
    { min: 3, max: 3 },
    { isInteger: true, min: 1e14, max: 1e15 },
  ];

  const holds = (value: number, own: Partial<typeof bounds>): boolean => {
    const { isInteger, min, max, isAboveMin, isBelowMax, divisor } = { ...bounds, ...own };
    const isWithin = (isAboveMin ? value > min : value >= min) && (isBelowMax ? value < max : value <= max);
    return isWithin && (!isInteger || (Number.isInteger(value) && value % divisor === 0));
  };

  it.each(cases)('%j: every text is such a number', (own) => {
    const automaton = numberAutomaton({ ...bounds, ...own });
    const isAlive = alive(automaton);
    expect(isAlive[0]).toBe(true);
    const states = automaton.states.map(({ isFinal, moves }) => ({
      isFinal,
      moves: moves.filter(({ next }) => isAlive[next]),
    }));
    const random = uniform(11);
    const found = Array.from({ length: 500 }, () => randomText({ states }, random) ?? '');
    expect(found.filter((text) => text === '' || !holds(JSON.parse(text), own))).toEqual([]);
  });

  it.each(cases)('%j: every short decimal within the bounds is a text', (own) => {
    const automaton = numberAutomaton({ ...bounds, ...own });
    const values = Array.from({ length: 4001 }, (_, i) => [
      i - 2000,
      (i - 2000) / 10,
      (i - 2000) / 100,
      (i - 2000) * 1e-9,
    ]).flat();
    const written = values
      .map(String)
      .filter((text) => text.length < 16 && !text.includes('e') && !(own.isInteger && text.includes('.')));
    expect(written.filter((text) => accepts(automaton, text) !== holds(Number(text), own))).toEqual([]);
  });

  it('bounds that no number meets leave none', () => {
    expect(alive(numberAutomaton({ ...bounds, min: 3, max: 2 }))[0]).toBe(false);
    expect(alive(numberAutomaton({ ...bounds, isInteger: true, min: 0.2, max: 0.8 }))[0]).toBe(false);
    expect(alive(numberAutomaton({ ...bounds, min: 1, max: 1, isAboveMin: true }))[0]).toBe(false);
  });
});
