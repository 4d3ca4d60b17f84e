// The tokens that may follow, as a bit for each id. A walk over the vocabulary's trie takes the derivative of the expression by each byte and leaves a
// subtree where it fails. Two things keep walks rare: the tokens that stay inside the first part of a sequence (a string, say) are found once for all
// places where the part occurs, and counters that a token cannot exhaust are cut, so that a string with 100 characters left has the tokens
// of one with 200. Long tokens, which exhaust more counters, are walked apart.
// Source: the division into tokens that depend on what follows a part and others is XGrammar's (Dong et al., arXiv 2411.15100).

import type { Expression, Expressions } from './expression';
import { spelling } from './spelling';
import { SHORT, type Trie, type Vocabulary } from './vocabulary';

export interface Masks {
  /** One bit for each id, in words of 32, lowest bit first. Not to be changed. States that allow the same tokens often have the same array. */
  allowed(state: Expression): Uint32Array;
}

/** The tokens that stay inside an expression or end with it, and the nodes at which it can end inside a token. */
interface Inside {
  readonly bits: Uint32Array;
  readonly exits: readonly number[];
}

/** Number of masks of a kind that are kept. */
const KEPT = 256;

type Kept<K, T> = (of: K, make: () => T) => T;

/** What was found for all formats, by spelling: almost every schema has the same strings and numbers. */
const INSIDES = new WeakMap<Trie, Kept<string, Inside>>();

export function masks(e: Expressions, { size, short, long }: Vocabulary): Masks {
  const words = Math.ceil(size / 32);
  const whole = kept<Expression, Uint32Array>();
  const ofShort = kept<Expression, Uint32Array>();
  const ofLong = kept<Expression, Uint32Array>();
  const unions = new WeakMap<Uint32Array, WeakMap<Uint32Array, Uint32Array>>();
  const insides = new Map([short, long].map((trie) => [trie, kept<Expression, Inside>()]));

  const walk = (
    trie: Trie,
    bits: Uint32Array,
    start: Expression,
    { from, to, above }: { from: number; to: number; above: number },
    exits?: number[],
  ): void => {
    const { bytes, depths, ends, firsts, tokens } = trie;
    const states: Expression[] = new Array(trie.depth + 1);
    states[above] = start;
    for (let node = from; node < to; ) {
      const depth = depths[node] as number;
      const state = e.derivative(states[depth - 1] as Expression, bytes[node] as number);
      if (state === e.fail) {
        node = ends[node] as number;
        continue;
      }
      const last = firsts[node + 1] as number;
      for (let at = firsts[node] as number; at < last; at++) {
        const id = tokens[at] as number;
        bits[id >> 5] = (bits[id >> 5] as number) | (1 << (id & 31));
      }
      if (exits !== undefined && state.nullable) exits.push(node);
      states[depth] = state;
      node = state === e.empty ? (ends[node] as number) : node + 1;
    }
  };
  const all = (trie: Trie) => ({ from: 0, to: trie.bytes.length, above: 0 });
  const inside = (trie: Trie, part: Expression): Inside =>
    (insides.get(trie) ?? kept<Expression, Inside>())(part, () => {
      const make = (): Inside => {
        const bits = new Uint32Array(words);
        const exits: number[] = [];
        walk(trie, bits, part, all(trie), exits);
        return { bits, exits };
      };
      const name = spelling(part);
      if (name === undefined) return make();
      const shared = INSIDES.get(trie) ?? kept<string, Inside>();
      INSIDES.set(trie, shared);
      return shared(name, make);
    });
  const found = (trie: Trie, state: Expression): Uint32Array => {
    const bits = new Uint32Array(words);
    if (state.kind !== 'sequence' || state.left.kind !== 'group' || state.left.nullable)
      walk(trie, bits, state, all(trie));
    else {
      const own = inside(trie, state.left);
      bits.set(own.bits);
      const { depths, ends } = trie;
      for (const node of own.exits)
        walk(trie, bits, state.right, { from: node + 1, to: ends[node] as number, above: depths[node] as number });
    }
    return bits;
  };
  const union = (a: Uint32Array, b: Uint32Array): Uint32Array => {
    const known = unions.get(a) ?? new WeakMap<Uint32Array, Uint32Array>();
    unions.set(a, known);
    const both = known.get(b) ?? a.map((word, i) => word | (b[i] as number));
    known.set(b, both);
    return both;
  };
  const cutShort = cutter(e, SHORT);
  const cutLong = cutter(e, Math.max(SHORT, long.depth));
  return {
    allowed: (state) =>
      whole(state, () => {
        const [ownShort, ownLong] = [cutShort(state), cutLong(state)];
        return union(
          ofShort(ownShort, () => found(short, ownShort)),
          ofLong(ownLong, () => found(long, ownLong)),
        );
      }),
  };
}

/** Keeps what was made for those that were used last. */
function kept<K, T>(): Kept<K, T> {
  const known = new Map<K, T>();
  return (of, make) => {
    const found = known.get(of) ?? make();
    known.delete(of);
    known.set(of, found);
    for (const oldest of known.keys()) {
      if (known.size <= KEPT) break;
      known.delete(oldest);
    }
    return found;
  };
}

/** Replaces counters that so many bytes cannot exhaust: a text of so many bytes has the same derivatives, up to such counters, before and after. */
function cutter(e: Expressions, bytes: number): (state: Expression) => Expression {
  const known = new WeakMap<Expression, Expression>();
  const cut = (one: Expression): Expression => {
    const found = known.get(one);
    if (found !== undefined) return found;
    const made = changed(one);
    known.set(one, made);
    return made;
  };
  const changed = (one: Expression): Expression => {
    if (one.kind === 'sequence') return e.sequence(cut(one.left), cut(one.right));
    if (one.kind === 'choice') return e.choice(...one.options.map(cut));
    if (one.kind === 'group') return e.group(cut(one.body));
    if (one.kind !== 'repeat') return one;
    const max = one.max > bytes ? Number.POSITIVE_INFINITY : one.max;
    return e.repeat(cut(one.body), Math.min(one.min, bytes + 1), max);
  };
  return cut;
}
