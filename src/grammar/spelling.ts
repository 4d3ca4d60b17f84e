// A text that is equal for equal expressions of different sets, such as the strings of two schemas.

import type { Expression } from './expression';

/** Maximum number of characters of a spelling. */
const MOST_CHARACTERS = 4096;
/** Maximum number of words that are spelled. */
const MOST_WORDS = 64;

const known = new WeakMap<Expression, string | undefined>();

/** Undefined for what is long, or refers to what was not made yet. */
export function spelling(one: Expression): string | undefined {
  if (known.has(one)) return known.get(one);
  const text = spelled(one);
  const short = text !== undefined && text.length <= MOST_CHARACTERS ? text : undefined;
  known.set(one, short);
  return short;
}

function spelled(one: Expression): string | undefined {
  switch (one.kind) {
    case 'fail':
    case 'empty':
      return `${one.kind};`;
    case 'byte':
      return `b${one.from},${one.to};`;
    case 'words': {
      const { words, low, high, depth } = one;
      if (high - low > MOST_WORDS) return undefined;
      return `w${JSON.stringify(words.slice(low, high).map((word) => Buffer.from(word.subarray(depth)).toString('latin1')))};`;
    }
    case 'sequence':
      return around('s', [spelling(one.left), spelling(one.right)]);
    case 'choice':
      return around('c', one.options.map(spelling));
    case 'repeat':
      return around(`r${one.min},${one.max}`, [spelling(one.body)]);
    case 'group':
      return around('g', [spelling(one.body)]);
    case 'reference':
      return undefined;
  }
}

const around = (name: string, parts: readonly (string | undefined)[]): string | undefined =>
  parts.includes(undefined) ? undefined : `${name}(${parts.join('')})`;
