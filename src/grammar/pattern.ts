// Patterns of strings: the part of ECMA-262's regular expressions (with the flag u) that describes regular languages. Look-ahead is taken at the
// beginning, look-behind, back references and word boundaries nowhere: they are refused by name.
// Source: ECMA-262 §22.2; Thompson, Regular Expression Search Algorithm (1968), for the automaton.

import { received, SparseVilaError } from '../errors';
import { type Automaton, both, complement, explore, LAST_CHARACTER } from './automaton';
import { type CharacterSet, classOf, DOT } from './characters';
import { spend } from './effort';

/** A part of a pattern. */
type Part =
  | { readonly kind: 'set'; readonly set: CharacterSet }
  | { readonly kind: 'sequence'; readonly parts: readonly Part[] }
  | { readonly kind: 'choice'; readonly parts: readonly Part[] }
  | { readonly kind: 'repeat'; readonly part: Part; readonly min: number; readonly max: number };

interface Ahead {
  readonly isNegative: boolean;
  readonly part: Part;
}

const ANY: Part = {
  kind: 'repeat',
  part: { kind: 'set', set: [[0, LAST_CHARACTER]] },
  min: 0,
  max: Number.POSITIVE_INFINITY,
};
const MOST_CHARACTERS = 20_000;
const MOST_NODES = 20_000;
const MOST_DEPTH = 50;
/** Steps of comparing two ranges of characters. */
const RANGE_STEPS = 1 / 32;

/** The texts in which a pattern is found. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function patternAutomaton(pattern: string): Automaton {
  if (pattern.length > MOST_CHARACTERS) throw refused(pattern, `more than ${MOST_CHARACTERS} characters`);
  try {
    new RegExp(pattern, 'u');
  } catch {
    throw refused(pattern, 'it is no regular expression (ECMA-262, flag u)');
  }
  const { aheads, part } = parser(pattern).whole();
  let found = determinize(nfaOf(pattern, part));
  for (const { isNegative, part: own } of aheads) {
    const ahead = determinize(nfaOf(pattern, { kind: 'sequence', parts: [own, ANY] }));
    found = both(found, isNegative ? complement(ahead) : ahead);
  }
  return found;
}

function refused(pattern: string, why: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_OPTION_INVALID',
    `format: the pattern ${received(pattern)} is not supported: ${why}.`,
  );
}

function parser(pattern: string) {
  const characters = [...pattern];
  let at = 0;
  let depth = 0;
  const peek = (): string | undefined => characters[at];
  const rest = (text: string): boolean => characters.slice(at, at + text.length).join('') === text;
  const take = (text: string): boolean => {
    if (!rest(text)) return false;
    at += text.length;
    return true;
  };

  const whole = (): { aheads: Ahead[]; part: Part } => {
    const aheads: Ahead[] = [];
    const options: Part[] = [];
    do {
      const begins = take('^');
      while (begins && options.length === 0 && (rest('(?!') || rest('(?='))) {
        const isNegative = rest('(?!');
        at += 3;
        const part = choice();
        aheads.push({ isNegative, part: take('$') ? ended(part) : part });
        take(')');
      }
      if (aheads.length > 0 && options.length > 0) throw refused(pattern, 'a look-ahead beside an alternative');
      const body = sequence();
      const ends = take('$');
      options.push({ kind: 'sequence', parts: [...(begins ? [] : [ANY]), body, ...(ends ? [] : [ANY])] });
    } while (take('|'));
    if (at < characters.length) throw refused(pattern, `${received(characters.slice(at).join(''))} inside`);
    if (aheads.length > 0 && options.length > 1) throw refused(pattern, 'a look-ahead beside an alternative');
    return { aheads, part: { kind: 'choice', parts: options } };
  };
  const ended = (part: Part): Part => {
    throw refused(pattern, `an end ($) inside ${part.kind}`);
  };
  const choice = (): Part => {
    if (++depth > MOST_DEPTH) throw refused(pattern, `more than ${MOST_DEPTH} nested groups`);
    const parts = [sequence()];
    while (take('|')) parts.push(sequence());
    depth--;
    return { kind: 'choice', parts };
  };
  const sequence = (): Part => {
    const parts: Part[] = [];
    for (let next = peek(); next !== undefined && next !== '|' && next !== ')' && next !== '$'; next = peek())
      parts.push(repeated(atom()));
    return { kind: 'sequence', parts };
  };
  const repeated = (part: Part): Part => {
    const counts = quantifier();
    if (counts === undefined) return part;
    take('?'); // A lazy quantifier accepts the same texts.
    return { kind: 'repeat', part, ...counts };
  };
  const quantifier = (): { min: number; max: number } | undefined => {
    if (take('*')) return { min: 0, max: Number.POSITIVE_INFINITY };
    if (take('+')) return { min: 1, max: Number.POSITIVE_INFINITY };
    if (take('?')) return { min: 0, max: 1 };
    const [text, min, comma, max] = /^\{(\d+)(,?)(\d*)\}/.exec(characters.slice(at, at + 40).join('')) ?? [];
    if (text === undefined) return undefined;
    at += text.length;
    const least = Number(min);
    return { min: least, max: comma === '' ? least : max === '' ? Number.POSITIVE_INFINITY : Number(max) };
  };
  const atom = (): Part => {
    if (take('(?:')) return closed();
    const named = /^\(\?<[A-Za-z_]\w*>/.exec(characters.slice(at, at + 80).join(''))?.[0];
    if (named !== undefined) {
      at += named.length;
      return closed();
    }
    if (rest('(?')) throw refused(pattern, 'look-ahead after the beginning, look-behind or a modifier');
    if (take('(')) return closed();
    if (rest('^')) throw refused(pattern, 'a beginning (^) inside');
    if (take('.')) return { kind: 'set', set: DOT };
    const { set, length, problem } = classOf(characters, at);
    if (problem !== undefined) throw refused(pattern, problem);
    at += length;
    return { kind: 'set', set };
  };
  const closed = (): Part => {
    const part = choice();
    if (peek() === '$') throw refused(pattern, 'an end ($) inside a group');
    take(')');
    return part;
  };
  return { whole };
}

/** States of a nondeterministic automaton: a set of characters that leads on, or states that are reached without one. The last one is final. */
interface Nfa {
  readonly states: { set: CharacterSet; next: number; free: number[] }[];
  readonly start: number;
  readonly final: number;
}

function nfaOf(pattern: string, whole: Part): Nfa {
  const states: Nfa['states'] = [];
  const add = (set: CharacterSet, next: number, free: number[]): number => {
    if (states.length >= MOST_NODES) throw refused(pattern, `more than ${MOST_NODES} states`);
    states.push({ set, next, free });
    return states.length - 1;
  };
  /** The state that accepts `part` and then goes on at `next`. */
  const build = (part: Part, next: number): number => {
    if (part.kind === 'set') return add(part.set, next, []);
    if (part.kind === 'sequence') return part.parts.reduceRight((after, one) => build(one, after), next);
    if (part.kind === 'choice')
      return add(
        [],
        -1,
        part.parts.map((one) => build(one, next)),
      );
    const { part: body, min, max } = part;
    let after = next;
    if (max === Number.POSITIVE_INFINITY) {
      const loop = add([], -1, [next]);
      states[loop]?.free.push(build(body, loop));
      after = loop;
    } else for (let i = min; i < max; i++) after = add([], -1, [next, build(body, after)]);
    for (let i = 0; i < min; i++) after = build(body, after);
    return after;
  };
  const final = add([], -1, []);
  return { states, start: build(whole, final), final };
}

/** The subset construction. */
function determinize({ states, start, final }: Nfa): Automaton {
  const closure = (from: Iterable<number>): number[] => {
    const seen = new Set(from);
    const open = [...seen];
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      for (const next of states[state]?.free ?? []) {
        if (!seen.has(next)) open.push(next);
        seen.add(next);
      }
    }
    return [...seen].filter((state) => state === final || (states[state]?.next ?? -1) >= 0).sort((a, b) => a - b);
  };
  return explore<readonly number[]>(
    closure([start]),
    (set) => set.join(),
    (set) => {
      const edges = set.flatMap((state) => {
        const { set: characters = [], next = -1 } = states[state] ?? {};
        return characters.map(([from, to]) => ({ from, to, next }));
      });
      const cuts = [...new Set(edges.flatMap(({ from, to }) => [from, to + 1]))].sort((a, b) => a - b);
      spend(set.length + cuts.length * edges.length * RANGE_STEPS);
      const moves = cuts.slice(0, -1).flatMap((from, i) => {
        const to = (cuts[i + 1] as number) - 1;
        const next = closure(edges.filter((edge) => edge.from <= from && to <= edge.to).map((edge) => edge.next));
        spend(next.length);
        return next.length === 0 ? [] : [{ from, to, next }];
      });
      return { isFinal: set.includes(final), moves };
    },
  );
}
