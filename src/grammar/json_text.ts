// JSON texts as expressions: characters, strings, white space, lists of members. What is written is compact or indented; strings use UTF-8 where
// JSON allows it.
// Source: RFC 8259; RFC 3629 for UTF-8.

import { type Automaton, alive } from './automaton';
import type { Expression, Expressions } from './expression';

/** Most spaces or tabs that indent a line. Without a limit, a model can write white space until its tokens are spent. */
const [MOST_SPACES, MOST_TABS] = [24, 8];
/** Digits of a number without bounds: few enough that a double holds it. */
const DIGITS = 15;

export interface JsonText {
  /** Before a member and before a closing bracket. */
  readonly space: Expression;
  readonly colon: Expression;
  readonly number: Expression;
  readonly integer: Expression;
  /** Any JSON value, without limits. */
  readonly any: Expression;
  /** A string of `min` to `max` characters. */
  string(min: number, max: number): Expression;
  /** A string that an automaton accepts; `fail` if there is none. */
  stringOf(automaton: Automaton): Expression;
  /** A text without quotes that an automaton accepts, of ASCII characters. */
  textOf(automaton: Automaton): Expression;
  array(items: Expression): Expression;
}

export function jsonText(e: Expressions): JsonText {
  const character = (text: string): Expression => e.byte(text.charCodeAt(0));
  const optional = (one: Expression): Expression => e.choice(e.empty, one);
  const lines = (indent: string, most: number): Expression =>
    e.sequence(character('\n'), e.repeat(character(indent), 0, most));
  const space = e.choice(e.empty, character(' '), lines(' ', MOST_SPACES), lines('\t', MOST_TABS));
  const quote = character('"');
  const digit = e.byte(0x30, 0x39);
  const whole = e.choice(character('0'), e.sequence(e.byte(0x31, 0x39), e.repeat(digit, 0, DIGITS - 1)));
  const fraction = e.sequence(character('.'), e.repeat(digit, 1, DIGITS));
  const exponent = e.sequence(e.words(['e', 'E']), optional(e.words(['+', '-'])), e.repeat(digit, 1, 2));
  const sign = optional(character('-'));
  const integer = e.sequence(sign, whole);
  const number = e.group(e.sequence(integer, optional(fraction), optional(exponent)));
  const plain = e.choice(
    ...[
      [0x20, 0x21],
      [0x23, 0x5b],
      [0x5d, 0xd7ff],
      [0xe000, 0x10ffff],
    ].map(([from = 0, to = 0]) => utf8(e, from, to)),
  );
  const free = e.choice(plain, escapes(e));
  const string: JsonText['string'] = (min, max) =>
    e.group(e.sequence(quote, max < min ? e.fail : e.repeat(free, min, max), quote));
  const textOf: JsonText['textOf'] = (automaton) => e.group(ofAutomaton(e, automaton, (from, to) => utf8(e, from, to)));
  const stringOf: JsonText['stringOf'] = (automaton) =>
    e.group(
      e.sequence(
        quote,
        ofAutomaton(e, automaton, (from, to) => quoted(e, from, to)),
        quote,
      ),
    );
  const colon = e.sequence(character(':'), optional(character(' ')));
  const listOf = (open: string, item: Expression, close: string): Expression => {
    const more = e.repeat(e.sequence(character(','), space, item), 0);
    return e.sequence(
      character(open),
      space,
      e.choice(character(close), e.sequence(item, more, space, character(close))),
    );
  };
  const anyString = string(0, Number.POSITIVE_INFINITY);
  const any: Expression = e.reference(false, () => {
    const member = e.sequence(anyString, colon, any);
    const literals = e.words(['true', 'false', 'null']);
    return e.choice(anyString, number, literals, listOf('{', member, '}'), listOf('[', any, ']'));
  });
  return {
    ...{ space, colon, number, integer: e.group(integer), any, string, stringOf, textOf },
    array: (items) => listOf('[', items, ']'),
  };
}

/** The expression of an automaton, whose states are made when they are reached; `fail` if it accepts no text. */
function ofAutomaton(
  e: Expressions,
  automaton: Automaton,
  write: (from: number, to: number) => Expression,
): Expression {
  const isAlive = alive(automaton);
  if (isAlive[0] !== true) return e.fail;
  const references: readonly Expression[] = automaton.states.map(({ isFinal, moves }) =>
    e.reference(isFinal, () => {
      const followers = new Map<number, Expression[]>();
      for (const { from, to, next } of moves) {
        if (isAlive[next] !== true) continue;
        const characters = followers.get(next) ?? [];
        characters.push(write(from, to));
        followers.set(next, characters);
      }
      const options = [...followers].map(([next, characters]) =>
        e.sequence(e.choice(...characters), references[next] as Expression),
      );
      return isFinal ? e.choice(e.empty, ...options) : e.choice(...options);
    }),
  );
  return references[0] as Expression;
}

/** Escapes of a string: a character or, with `\u`, a code unit; surrogates in pairs. */
function escapes(e: Expressions): Expression {
  const hex = e.choice(e.byte(0x30, 0x39), e.byte(0x41, 0x46), e.byte(0x61, 0x66));
  const units = (digits: readonly string[], more: number): Expression =>
    e.sequence(e.words(digits.flatMap((text) => [text, text.toUpperCase()])), e.repeat(hex, more, more));
  const other = e.choice(
    units([...'0123456789abcef'], 3),
    units(
      [...'01234567'].map((digit) => `d${digit}`),
      2,
    ),
  );
  const high = units(
    [...'89ab'].map((digit) => `d${digit}`),
    2,
  );
  const low = units(
    [...'cdef'].map((digit) => `d${digit}`),
    2,
  );
  const unit = e.sequence(e.byte(0x75), e.choice(other, e.sequence(high, e.words(['\\u']), low)));
  return e.sequence(e.byte(0x5c), e.choice(e.words([...'"\\/bfnrt']), unit));
}

/** The characters of a range in a string: themselves, or the escapes that JSON.stringify writes. */
function quoted(e: Expressions, from: number, to: number): Expression {
  const isEscaped = (point: number): boolean => point < 0x20 || point === 0x22 || point === 0x5c;
  const options: Expression[] = [];
  const escaped: string[] = [];
  let at = from;
  for (const point of [...Array(0x20).keys(), 0x22, 0x5c, 0x110000]) {
    if (point < at) continue;
    if (point > at) options.push(...plainRanges(e, at, Math.min(to, point - 1)));
    if (point > to) break;
    if (isEscaped(point)) escaped.push(JSON.stringify(String.fromCodePoint(point)).slice(1, -1));
    at = point + 1;
  }
  return e.choice(...options, e.words(escaped));
}

/** A range without surrogates, which UTF-8 does not have. */
function plainRanges(e: Expressions, from: number, to: number): Expression[] {
  return [
    [from, Math.min(to, 0xd7ff)],
    [Math.max(from, 0xe000), to],
  ].flatMap(([low = 0, high = 0]) => (low > high ? [] : [utf8(e, low, high)]));
}

/** The UTF-8 bytes of the characters from one code point to another; both of them surrogates, or neither. */
function utf8(e: Expressions, from: number, to: number): Expression {
  for (const last of [0x7f, 0x7ff, 0xffff]) {
    if (from <= last && to > last) return e.choice(utf8(e, from, last), utf8(e, last + 1, to));
  }
  const [low, high] = [from, to].map((point) => Buffer.from(String.fromCodePoint(point), 'utf8'));
  return sameLength(e, [...(low ?? [])], [...(high ?? [])]);
}

/** Byte strings of one length from `low` to `high`, whose bytes after the first are continuation bytes. */
function sameLength(e: Expressions, low: readonly number[], high: readonly number[]): Expression {
  const [first = 0, ...lowRest] = low;
  const [last = 0, ...highRest] = high;
  if (lowRest.length === 0) return e.byte(first, last);
  if (first === last) return e.sequence(e.byte(first), sameLength(e, lowRest, highRest));
  const least = lowRest.map(() => 0x80);
  const most = highRest.map(() => 0xbf);
  const all = e.sequence(...least.map(() => e.byte(0x80, 0xbf)));
  const [begin, end] = [
    lowRest.every((byte) => byte === 0x80) ? first : first + 1,
    highRest.every((byte) => byte === 0xbf) ? last : last - 1,
  ];
  return e.choice(
    begin > first ? e.sequence(e.byte(first), sameLength(e, lowRest, most)) : e.fail,
    begin <= end ? e.sequence(e.byte(begin, end), all) : e.fail,
    end < last ? e.sequence(e.byte(last), sameLength(e, least, highRest)) : e.fail,
  );
}
