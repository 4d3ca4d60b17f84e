// Numbers within bounds, written in decimals without an exponent: an automaton that compares the digits with those of the bounds as it reads them.
// At most 15 digits in all, so that different decimals are different doubles, in the same order.

import { type Automaton, explore } from './automaton';

export interface NumberBounds {
  readonly isInteger: boolean;
  readonly min: number;
  readonly max: number;
  /** Whether the bounds themselves are excluded. */
  readonly isAboveMin: boolean;
  readonly isBelowMax: boolean;
  /** A positive integer that divides the number; for integers only. */
  readonly divisor: number;
}

const MOST_DIGITS = 15;

/** The digits of a number's magnitude before and after the point. */
interface Decimal {
  readonly whole: string;
  readonly fraction: string;
}

/** One bound of a magnitude; undefined: none. */
interface Limit extends Decimal {
  readonly isOpen: boolean;
}

/** -1, 0 or 1: the digits so far are below, equal to or above those of a limit. */
type Order = -1 | 0 | 1;

interface State {
  readonly phase: 'start' | 'sign' | 'whole' | 'point' | 'fraction';
  readonly isNegative: boolean;
  /** Number of digits before and after the point; whether the number is 0 so far. */
  readonly whole: number;
  readonly fraction: number;
  readonly isZero: boolean;
  readonly low: Order;
  readonly high: Order;
  readonly rest: number;
}

const START: State = {
  ...{ phase: 'start', isNegative: false, whole: 0, fraction: 0, isZero: true, low: 0, high: 0, rest: 0 },
};

export function numberAutomaton(bounds: NumberBounds): Automaton {
  const { min, max, isAboveMin, isBelowMax } = bounds;
  const lower = (value: number, isOpen: boolean): Limit | undefined =>
    value < 0 || value === Number.POSITIVE_INFINITY ? undefined : { ...decimalOf(value), isOpen };
  // The magnitudes of positive numbers lie between min and max, those of negative ones between -max and -min.
  const positive = { low: lower(min, isAboveMin), high: lower(max, isBelowMax), isPossible: max >= 0 };
  const negative = { low: lower(-max, isBelowMax), high: lower(-min, isAboveMin), isPossible: min < 0 };
  const limitsOf = (state: State) => (state.isNegative ? negative : positive);
  const isFinal = (state: State): boolean => {
    const { low, high } = limitsOf(state);
    if (state.phase !== 'whole' && state.phase !== 'fraction') return false;
    if (state.isNegative && state.isZero) return false;
    return state.rest === 0 && isAbove(state, low) && isBelow(state, high);
  };
  const digits = (state: State): State[] => {
    const { low, high, isPossible } = limitsOf(state);
    const isFraction = state.phase === 'point' || state.phase === 'fraction';
    const isFull = state.whole + state.fraction >= MOST_DIGITS;
    if (!isPossible || isFull || (state.phase === 'whole' && state.isZero)) return [];
    return Array.from({ length: 10 }, (_, digit) => ({
      ...state,
      phase: isFraction ? 'fraction' : 'whole',
      whole: state.whole + (isFraction ? 0 : 1),
      fraction: state.fraction + (isFraction ? 1 : 0),
      isZero: state.isZero && digit === 0,
      low: compared(state.low, digit, low, isFraction, state),
      high: compared(state.high, digit, high, isFraction, state),
      rest: (state.rest * 10 + digit) % bounds.divisor,
    }));
  };
  const settled = (state: State): State => {
    const { low, high } = limitsOf(state);
    return { ...state, phase: 'point', low: atPoint(state, low, state.low), high: atPoint(state, high, state.high) };
  };
  return explore<State>(START, key, (state) => {
    const moves = digits(state).map((next, digit) => ({ from: 0x30 + digit, to: 0x30 + digit, next }));
    const minus = { ...state, phase: 'sign' as const, isNegative: true };
    if (state.phase === 'start') moves.push({ from: 0x2d, to: 0x2d, next: minus });
    if (state.phase === 'whole' && !bounds.isInteger) moves.push({ from: 0x2e, to: 0x2e, next: settled(state) });
    return { isFinal: isFinal(state), moves };
  });
}

const key = ({ phase, isNegative, whole, fraction, isZero, low, high, rest }: State): string =>
  `${phase} ${isNegative} ${whole} ${fraction} ${isZero} ${low} ${high} ${rest}`;

/** The order after one more digit. Before the point, it holds for a limit with as many digits. */
function compared(before: Order, digit: number, limit: Limit | undefined, isFraction: boolean, state: State): Order {
  if (limit === undefined || before !== 0) return before;
  const its = isFraction ? (limit.fraction[state.fraction] ?? '0') : limit.whole[state.whole];
  if (its === undefined) return 1;
  return Math.sign(digit - Number(its)) as Order;
}

/** The order of the part before the point: a number with fewer digits is lower. */
function atPoint({ whole }: State, limit: Limit | undefined, before: Order): Order {
  if (limit === undefined || whole === limit.whole.length) return before;
  return whole < limit.whole.length ? -1 : 1;
}

/** The order of the whole number. */
function orderOf(state: State, limit: Limit, before: Order): Order {
  const order = state.phase === 'whole' ? atPoint(state, limit, before) : before;
  if (order !== 0) return order;
  return /[1-9]/.test(limit.fraction.slice(state.fraction)) ? -1 : 0;
}

function isAbove(state: State, limit: Limit | undefined): boolean {
  if (limit === undefined) return true;
  const order = orderOf(state, limit, state.low);
  return order > 0 || (order === 0 && !limit.isOpen);
}

function isBelow(state: State, limit: Limit | undefined): boolean {
  if (limit === undefined) return true;
  const order = orderOf(state, limit, state.high);
  return order < 0 || (order === 0 && !limit.isOpen);
}

/** The decimal digits of a finite number of at least 0. */
function decimalOf(value: number): Decimal {
  const [mantissa = '0', exponent = '0'] = String(value).split('e');
  const [whole = '0', fraction = ''] = mantissa.split('.');
  const shift = Number(exponent);
  const digits = whole + fraction;
  const point = whole.length + shift;
  const padded = point <= 0 ? '0'.repeat(1 - point) + digits : digits.padEnd(point, '0');
  const at = Math.max(1, point);
  return { whole: padded.slice(0, at).replace(/^0+(?=\d)/, ''), fraction: padded.slice(at) };
}
