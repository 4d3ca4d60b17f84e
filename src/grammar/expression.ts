// Regular expressions with recursion over bytes, which denote the texts that an answer may be. An expression is the state of its own automaton:
// the derivative by a byte is the expression of what may follow. Equal expressions are one object, so that derivatives and masks are computed once.
// Source: Brzozowski, Derivatives of Regular Expressions (1964); Owens, Reppy and Turon, Regular-expression derivatives re-examined (2009).

import { invalidOption } from '../options';
import { spend } from './effort';

interface Common {
  readonly id: number;
  /** Whether the empty text matches. */
  readonly nullable: boolean;
  /** Derivatives by byte that were computed. */
  readonly next: Map<number, Expression>;
}

export type Expression = Common &
  (
    | { readonly kind: 'fail' | 'empty' }
    /** One byte of a range. */
    | { readonly kind: 'byte'; readonly from: number; readonly to: number }
    /** What follows the first `depth` bytes, which are equal, of the sorted words from `low` to `high` - 1. */
    | {
        readonly kind: 'words';
        readonly words: readonly Uint8Array[];
        readonly low: number;
        readonly high: number;
        readonly depth: number;
      }
    | { readonly kind: 'sequence'; readonly left: Expression; readonly right: Expression }
    | { readonly kind: 'choice'; readonly options: readonly Expression[] }
    /** `body`, which does not match the empty text, at least `min` and at most `max` times. */
    | { readonly kind: 'repeat'; readonly body: Expression; readonly min: number; readonly max: number }
    /** `body`, kept apart from what follows it in a sequence: the tokens that stay inside it are found once. */
    | { readonly kind: 'group'; readonly body: Expression }
    | { readonly kind: 'reference'; readonly target: () => Expression }
  );

export interface Expressions {
  readonly fail: Expression;
  readonly empty: Expression;
  /** Share of the expressions that there may be, from 0 to 1. */
  readonly filled: number;
  byte(from: number, to?: number): Expression;
  /** One of these texts, in UTF-8. */
  words(texts: readonly string[]): Expression;
  sequence(...parts: readonly Expression[]): Expression;
  choice(...options: readonly Expression[]): Expression;
  repeat(body: Expression, min: number, max?: number): Expression;
  group(body: Expression): Expression;
  /** An expression that is made when it is first needed, which may contain the reference itself after a byte. */
  reference(nullable: boolean, target: () => Expression): Expression;
  derivative(of: Expression, byte: number): Expression;
}

/** Maximum number of different expressions of one schema and the answers that were written by it. */
const MOST = 400_000;

/** Steps of making an expression, beside those of its options. */
const STATE_STEPS = 20;

/** A set of expressions, in which equal ones are one object. */
export function expressions(): Expressions {
  const known = new Map<string, Expression>();
  let count = 0;
  const common = (nullable: boolean): Common => {
    spend(STATE_STEPS);
    if (++count > MOST) throw invalidOption('format', `a schema of at most ${MOST} states`, 'one that needs more');
    return { id: count, nullable, next: new Map() };
  };
  const intern = (key: string, make: () => Expression): Expression => {
    const found = known.get(key);
    if (found !== undefined) return found;
    const made = make();
    known.set(key, made);
    return made;
  };
  const fail: Expression = { ...common(false), kind: 'fail' };
  const empty: Expression = { ...common(true), kind: 'empty' };

  const byte: Expressions['byte'] = (from, to = from) =>
    intern(`b${from},${to}`, () => ({ ...common(false), kind: 'byte', from, to }));

  const ofWords = (
    words: readonly Uint8Array[],
    list: number,
    low: number,
    high: number,
    depth: number,
  ): Expression => {
    if (low >= high) return fail;
    const ends = words[low]?.length === depth;
    if (ends && high - low === 1) return empty;
    return intern(`w${list},${low},${high},${depth}`, () => {
      const made: Expression = { ...common(ends), kind: 'words', words, low, high, depth };
      lists.set(made.id, list);
      return made;
    });
  };
  const lists = new Map<number, number>();
  let lastList = 0;
  const words: Expressions['words'] = (texts) =>
    intern(`t${JSON.stringify(texts)}`, () => {
      const sorted = [...new Set(texts)].map((text) => Buffer.from(text, 'utf8')).sort(Buffer.compare);
      return ofWords(sorted, ++lastList, 0, sorted.length, 0);
    });

  const pair = (left: Expression, right: Expression): Expression => {
    if (left === fail || right === fail) return fail;
    if (left === empty) return right;
    if (right === empty) return left;
    if (left.kind === 'sequence') return pair(left.left, pair(left.right, right));
    const nullable = left.nullable && right.nullable;
    return intern(`s${left.id},${right.id}`, () => ({ ...common(nullable), kind: 'sequence', left, right }));
  };
  const sequence: Expressions['sequence'] = (...parts) => parts.reduceRight((right, left) => pair(left, right), empty);

  const choice: Expressions['choice'] = (...given) => {
    const flat = new Map<number, Expression>();
    for (const one of given)
      for (const option of one.kind === 'choice' ? one.options : [one])
        if (option !== fail) flat.set(option.id, option);
    spend(flat.size);
    const options = [...flat.values()].sort((a, b) => a.id - b.id);
    const [first = fail] = options;
    if (options.length < 2) return first;
    const nullable = options.some((option) => option.nullable);
    return intern(`c${options.map(({ id }) => id).join()}`, () => ({ ...common(nullable), kind: 'choice', options }));
  };

  const repeat: Expressions['repeat'] = (body, min, max = Number.POSITIVE_INFINITY) => {
    if (max < min) return fail;
    if (max === 0 || body === empty) return empty;
    if (body === fail) return min === 0 ? empty : fail;
    if (min === 1 && max === 1) return body;
    return intern(`r${body.id},${min},${max}`, () => ({ ...common(min === 0), kind: 'repeat', body, min, max }));
  };

  const group: Expressions['group'] = (body) => {
    if (body === fail || body === empty || body.kind === 'group') return body;
    return intern(`g${body.id}`, () => ({ ...common(body.nullable), kind: 'group', body }));
  };

  const reference: Expressions['reference'] = (nullable, target) => {
    let made: Expression | undefined;
    return {
      ...common(nullable),
      kind: 'reference',
      target: () => {
        made ??= target();
        return made;
      },
    };
  };

  const derive = (of: Expression, by: number): Expression => {
    switch (of.kind) {
      case 'fail':
      case 'empty':
        return fail;
      case 'byte':
        return of.from <= by && by <= of.to ? empty : fail;
      case 'words': {
        const { words: own, low, high, depth } = of;
        const at = (least: number): number => firstAtLeast(own, depth, least, low, high);
        return ofWords(own, lists.get(of.id) ?? 0, at(by), at(by + 1), depth + 1);
      }
      case 'sequence': {
        const inside = pair(derivative(of.left, by), of.right);
        return of.left.nullable ? choice(inside, derivative(of.right, by)) : inside;
      }
      case 'choice':
        return choice(...of.options.map((option) => derivative(option, by)));
      case 'repeat':
        return pair(derivative(of.body, by), repeat(of.body, Math.max(0, of.min - 1), of.max - 1));
      case 'group':
        return group(derivative(of.body, by));
      case 'reference':
        return derivative(of.target(), by);
    }
  };
  const derivative: Expressions['derivative'] = (of, by) => {
    const found = of.next.get(by);
    if (found !== undefined) return found;
    const made = derive(of, by);
    of.next.set(by, made);
    return made;
  };
  return {
    get filled() {
      return count / MOST;
    },
    ...{ fail, empty, byte, words, sequence, choice, repeat, group, reference, derivative },
  };
}

/** The first index from `low` on at which the byte at `depth` of a sorted word is at least `least`; a word that ends comes first. */
function firstAtLeast(words: readonly Uint8Array[], depth: number, least: number, low: number, high: number): number {
  let [begin, end] = [low, high];
  while (begin < end) {
    const middle = (begin + end) >> 1;
    if ((words[middle]?.[depth] ?? -1) < least) begin = middle + 1;
    else end = middle;
  }
  return begin;
}
