// Sets of characters as a pattern writes them: a character, an escape, or a class in brackets.
// Source: ECMA-262 §22.2.1 (CharacterClass, AtomEscape, with the flag u).

import { LAST_CHARACTER } from './automaton';

/** Ranges of code points, ascending and apart from each other. */
export type CharacterSet = readonly (readonly [from: number, to: number])[];

const code = (character: string): number => character.codePointAt(0) as number;
const range = (from: string, to = from): readonly [number, number] => [code(from), code(to)];

/** Line terminators, which the dot does not match. */
const LINES: CharacterSet = [range('\n'), range('\r'), range('\u2028', '\u2029')];
const DIGITS: CharacterSet = [range('0', '9')];
const WORDS: CharacterSet = [range('0', '9'), range('A', 'Z'), range('_'), range('a', 'z')];
const SPACES: CharacterSet = normalized([
  ...[range('\t', '\r'), range(' '), range('\u00a0'), range('\u1680'), range('\u2000', '\u200a')],
  ...[range('\u2028', '\u2029'), range('\u202f'), range('\u205f'), range('\u3000'), range('\ufeff')],
]);
export const DOT: CharacterSet = complementOf(LINES);

const CLASSES: Readonly<Record<string, CharacterSet>> = {
  ...{ d: DIGITS, w: WORDS, s: SPACES },
  ...{ D: complementOf(DIGITS), W: complementOf(WORDS), S: complementOf(SPACES) },
};
const CONTROLS: Readonly<Record<string, string>> = { t: '\t', n: '\n', v: '\v', f: '\f', r: '\r', 0: '\0' };

/** Sorted, and joined where ranges meet. */
function normalized(ranges: CharacterSet): CharacterSet {
  const joined: [number, number][] = [];
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = joined.at(-1);
    if (last !== undefined && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else joined.push([from, to]);
  }
  return joined;
}

/** All other characters. */
export function complementOf(set: CharacterSet): CharacterSet {
  const others: [number, number][] = [];
  let at = 0;
  for (const [from, to] of normalized(set)) {
    if (from > at) others.push([at, from - 1]);
    at = to + 1;
  }
  if (at <= LAST_CHARACTER) others.push([at, LAST_CHARACTER]);
  return others;
}

interface Read {
  readonly set: CharacterSet;
  /** Number of characters of the pattern. */
  readonly length: number;
  /** What is not supported. */
  readonly problem?: string;
}

/** Reads the set that a valid pattern has at `at`. */
export function classOf(characters: readonly string[], at: number): Read {
  const first = characters[at] ?? '';
  if (first === '\\') return escapeAt(characters, at);
  if (first !== '[') return { set: [range(first)], length: 1 };
  const isNegated = characters[at + 1] === '^';
  const ranges: (readonly [number, number])[] = [];
  let next = at + (isNegated ? 2 : 1);
  while (next < characters.length && characters[next] !== ']') {
    const one = memberAt(characters, next);
    if (one.problem !== undefined) return one;
    next += one.length;
    const [low] = one.set[0] ?? [0];
    const isRange = characters[next] === '-' && characters[next + 1] !== ']' && isSingle(one.set);
    const end = isRange ? memberAt(characters, next + 1) : undefined;
    if (end !== undefined && isSingle(end.set)) {
      next += 1 + end.length;
      ranges.push([low, end.set[0]?.[0] ?? low]);
    } else for (const own of one.set) ranges.push(own);
  }
  const set = isNegated ? complementOf(ranges) : normalized(ranges);
  return { set, length: next + 1 - at };
}

const isSingle = (set: CharacterSet): boolean => set.length === 1 && set[0]?.[0] === set[0]?.[1];

function memberAt(characters: readonly string[], at: number): Read {
  const first = characters[at] ?? '';
  if (first !== '\\') return { set: [range(first)], length: 1 };
  if (characters[at + 1] === 'b') return { set: [range('\b')], length: 2 };
  return escapeAt(characters, at);
}

function escapeAt(characters: readonly string[], at: number): Read {
  const name = characters[at + 1] ?? '';
  const known = CLASSES[name];
  if (known !== undefined) return { set: known, length: 2 };
  const control = CONTROLS[name];
  if (control !== undefined) return { set: [range(control)], length: 2 };
  const text = characters.slice(at, at + 12).join('');
  const [hex, ...groups] = /^\\(?:x([\da-f]{2})|u([\da-f]{4})|u\{([\da-f]+)\})/i.exec(text) ?? [];
  if (hex !== undefined) {
    const point = Number.parseInt(groups.find((digits) => digits !== undefined) ?? '', 16);
    return { set: [[point, point]], length: hex.length };
  }
  if (/[A-Za-z1-9]/.test(name)) {
    const what = { b: 'a word boundary', B: 'a word boundary', p: 'a Unicode property', P: 'a Unicode property' }[name];
    return { set: [], length: 2, problem: what ?? `the escape \\${name}` };
  }
  return { set: [range(name)], length: 2 };
}
