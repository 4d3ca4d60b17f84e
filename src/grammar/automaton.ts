// Deterministic automata over the characters of a text: what strings and numbers of a schema may be. They are intersected here, because an
// expression over bytes could not tell whether an intersection is empty; states from which no text ends are removed.

import { invalidOption } from '../options';
import { spend } from './effort';

/** The characters from one code point to another, which lead to a state. */
export interface Move {
  readonly from: number;
  readonly to: number;
  readonly next: number;
}

/** The start is state 0; the moves of a state do not overlap. */
export interface Automaton {
  readonly states: readonly { readonly isFinal: boolean; readonly moves: readonly Move[] }[];
}

export const LAST_CHARACTER = 0x10ffff;
/** Maximum number of states. */
const MOST_STATES = 20_000;
/** Steps of exploring a state, beside those of its moves. */
const STATE_STEPS = 20;
/** Maximum number of moves of all states. */
const MOST_MOVES = 200_000;

/** What is known about a state: whether a text may end there, and the states that characters lead to. */
export interface Explored<S> {
  readonly isFinal: boolean;
  readonly moves: readonly { readonly from: number; readonly to: number; readonly next: S }[];
}

/** The automaton of all states that can be reached from `start`. `key` tells states apart. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function explore<S>(start: S, key: (state: S) => string, look: (state: S) => Explored<S>): Automaton {
  const numbers = new Map([[key(start), 0]]);
  const found = [start];
  const states: { isFinal: boolean; moves: Move[] }[] = [];
  let total = 0;
  for (let at = 0; at < found.length; at++) {
    const { isFinal, moves } = look(found[at] as S);
    total += moves.length;
    spend(STATE_STEPS + moves.length);
    if (found.length > MOST_STATES || total > MOST_MOVES)
      throw invalidOption('format', `a string or number of at most ${MOST_STATES} states`, 'one that needs more');
    const numbered = moves.map(({ from, to, next }) => {
      const name = key(next);
      const known = numbers.get(name) ?? numbers.size;
      if (known === numbers.size) {
        numbers.set(name, known);
        found.push(next);
      }
      return { from, to, next: known };
    });
    states.push({ isFinal, moves: numbered });
  }
  return { states };
}

/** The texts that both automata accept. */
export function both(a: Automaton, b: Automaton): Automaton {
  return explore<readonly [number, number]>(
    [0, 0],
    ([i, j]) => `${i},${j}`,
    ([i, j]) => {
      const [one, other] = [stateOf(a, i), stateOf(b, j)];
      const moves = one.moves.flatMap((mine) =>
        other.moves.flatMap((its) => {
          const [from, to] = [Math.max(mine.from, its.from), Math.min(mine.to, its.to)];
          return from > to ? [] : [{ from, to, next: [mine.next, its.next] as const }];
        }),
      );
      return { isFinal: one.isFinal && other.isFinal, moves };
    },
  );
}

/** The texts that an automaton does not accept. */
export function complement({ states }: Automaton): Automaton {
  const dead = states.length;
  const own = states.map(({ isFinal, moves }) => {
    const sorted = [...moves].sort((a, b) => a.from - b.from);
    let at = 0;
    const gaps: Move[] = [];
    for (const { from, to } of sorted) {
      if (from > at) gaps.push({ from: at, to: from - 1, next: dead });
      at = to + 1;
    }
    if (at <= LAST_CHARACTER) gaps.push({ from: at, to: LAST_CHARACTER, next: dead });
    return { isFinal: !isFinal, moves: [...sorted, ...gaps] };
  });
  return { states: [...own, { isFinal: true, moves: [{ from: 0, to: LAST_CHARACTER, next: dead }] }] };
}

/** Texts of `min` to `max` characters. */
export function lengths(min: number, max: number): Automaton {
  const any = (next: number) => [{ from: 0, to: LAST_CHARACTER, next }];
  return explore<number>(0, String, (length) => ({
    isFinal: length >= min,
    moves: length === max ? [] : any(max === Number.POSITIVE_INFINITY && length === min ? length : length + 1),
  }));
}

/** All texts but these. */
export function allBut(texts: readonly string[]): Automaton {
  const isGiven = new Set(texts);
  const followers = new Map<string, Set<number>>();
  for (const text of isGiven) {
    let before = '';
    for (const character of text) {
      const set = followers.get(before) ?? new Set<number>();
      followers.set(before, set.add(character.codePointAt(0) as number));
      before += character;
    }
  }
  return explore<string | undefined>(
    '',
    (state) => (state === undefined ? '' : `-${state}`),
    (state) => {
      if (state === undefined) return { isFinal: true, moves: [{ from: 0, to: LAST_CHARACTER, next: undefined }] };
      let at = 0;
      const moves: { from: number; to: number; next: string | undefined }[] = [];
      for (const point of [...(followers.get(state) ?? [])].sort((a, b) => a - b)) {
        if (point > at) moves.push({ from: at, to: point - 1, next: undefined });
        moves.push({ from: point, to: point, next: state + String.fromCodePoint(point) });
        at = point + 1;
      }
      if (at <= LAST_CHARACTER) moves.push({ from: at, to: LAST_CHARACTER, next: undefined });
      return { isFinal: !isGiven.has(state), moves };
    },
  );
}

/** For each state, whether a text can end there or after it. */
export function alive({ states }: Automaton): boolean[] {
  const before = states.map((): number[] => []);
  for (const [i, { moves }] of states.entries()) for (const { next } of moves) before[next]?.push(i);
  const isAlive = states.map(({ isFinal }) => isFinal);
  const open = states.flatMap(({ isFinal }, i) => (isFinal ? [i] : []));
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    for (const earlier of before[state] ?? []) {
      if (isAlive[earlier] === true) continue;
      isAlive[earlier] = true;
      open.push(earlier);
    }
  }
  return isAlive;
}

/** Whether an automaton accepts a text. */
export function accepts({ states }: Automaton, text: string): boolean {
  let state: Automaton['states'][number] | undefined = states[0];
  for (const character of text) {
    const point = character.codePointAt(0) as number;
    const move = state?.moves.find(({ from, to }) => from <= point && point <= to);
    state = move && states[move.next];
  }
  return state?.isFinal === true;
}

function stateOf({ states }: Automaton, i: number): Automaton['states'][number] {
  return states[i] as Automaton['states'][number];
}
