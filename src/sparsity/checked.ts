// Validation around a sparsity method: a method may be the user's own, so its parts are checked once, and errors that it throws get codes.

import { messageOf, received, SparseVilaError } from '../errors';
import { BOOLEAN, type Check, COUNT, FUNCTION, isAccepted, listOf, NAME, nearest, OBJECT, oneOf } from '../options';
import type { Bound, Drop, Encode, Prune, Retrieve, Reuse, SparsityMethod } from './method';
import { LAYER, POSITIONS } from './options';

const LAYERS = listOf('layers, each a number or a share of the depth between 0 and 1,', LAYER);

const TAPS: Check = {
  expected: 'an object of the lists of layers salience and keys',
  accepts: (value) =>
    OBJECT.accepts(value) &&
    Object.entries(value as object).every(
      ([name, layers]) => (name === 'salience' || name === 'keys') && (layers === undefined || LAYERS.accepts(layers)),
    ),
};

const REFRESH: Check = {
  expected: 'an object of every, rejected or both, integers of at least 1,',
  accepts: (value) => {
    if (!OBJECT.accepts(value)) return false;
    const given = Object.entries(value as object).filter(([, n]) => n !== undefined);
    return given.length > 0 && given.every(([name, n]) => ['every', 'rejected'].includes(name) && COUNT.accepts(n));
  },
};

const REQUIRED = { required: true as const };

type PartChecks<T> = { readonly [K in keyof Required<T>]: Check };

const GROUPS: {
  readonly encode: PartChecks<Encode>;
  readonly reuse: PartChecks<Reuse>;
  readonly prune: PartChecks<Prune>;
  readonly drop: PartChecks<Drop>;
  readonly retrieve: PartChecks<Retrieve>;
  readonly bound: PartChecks<Bound>;
} = {
  encode: { select: { ...FUNCTION, ...REQUIRED } },
  reuse: { every: { ...COUNT, ...REQUIRED }, select: { ...FUNCTION, ...REQUIRED } },
  prune: {
    ...{ taps: TAPS, rows: oneOf('features', 'projected'), question: BOOLEAN, scope: oneOf('plane', 'turn') },
    select: { ...FUNCTION, ...REQUIRED },
  },
  drop: {
    layers: { ...LAYERS, ...REQUIRED },
    scores: oneOf('previous', 'next'),
    raters: FUNCTION,
    select: { ...FUNCTION, ...REQUIRED },
  },
  retrieve: {
    window: COUNT,
    permanent: BOOLEAN,
    refresh: REFRESH,
    frames: FUNCTION,
    frameKeys: COUNT,
    localFrames: COUNT,
    select: { ...FUNCTION, ...REQUIRED },
  },
  bound: { every: { ...COUNT, ...REQUIRED }, frames: { ...COUNT, ...REQUIRED }, select: { ...FUNCTION, ...REQUIRED } },
};

const PARTS: { readonly [K in keyof Required<SparsityMethod>]: Check } = {
  name: { ...NAME, ...REQUIRED },
  positions: POSITIONS,
  resize: {
    expected: 'a share above 0 and at most 1',
    accepts: (value) => typeof value === 'number' && value > 0 && value <= 1,
  },
  encode: OBJECT,
  reuse: OBJECT,
  prune: OBJECT,
  drop: OBJECT,
  retrieve: OBJECT,
  bound: OBJECT,
};

/** Members that methods had before their parts were grouped, and the members that replace them. */
const MOVED: Readonly<Record<string, string>> = {
  tower: 'prune.taps',
  merges: 'prune.rows',
  dropFrom: 'drop.layers',
  scoresOf: 'drop.scores',
  raters: 'drop.raters',
  window: 'retrieve.window',
  evicts: 'retrieve.permanent',
};

/**
 * A copy of `method` whose functions throw errors with codes.
 * @throws SparseVilaError `ERR_METHOD` for a part that is unknown, malformed, or one of the former members
 */
export function checkedMethod(method: SparsityMethod): SparsityMethod {
  if (!isAccepted(OBJECT, method))
    throw new SparseVilaError(
      'ERR_METHOD',
      `Expected a sparsity method, such as dense() or sparseVila(), received ${received(method)}.`,
    );
  const name = read(method, 'name', 'a method');
  for (const [member, place] of Object.entries(MOVED))
    if (read(method, member, 'a method') !== undefined) throw malformed(name, place, `the former member ${member}`);
  const checked = checkedParts(name, method, PARTS, '');
  const groups = Object.entries(GROUPS).flatMap(([group, checks]) => {
    const given = checked[group];
    return given === undefined ? [] : [[group, checkedParts(name, given as object, checks, `${group}.`)] as const];
  });
  const made = { ...checked, ...Object.fromEntries(groups) } as unknown as SparsityMethod;
  if (made.retrieve?.frames !== undefined && (made.drop !== undefined || made.retrieve.permanent === true))
    throw malformed(name, 'retrieve.frames without drop and without retrieve.permanent', 'a method with both');
  const { refresh, permanent, frames } = made.retrieve ?? {};
  if (refresh !== undefined && (permanent === true || frames !== undefined))
    throw malformed(name, 'retrieve.refresh without retrieve.permanent and retrieve.frames', 'a method with both');
  if (made.bound !== undefined && (made.drop !== undefined || made.retrieve?.frames !== undefined))
    throw malformed(name, 'bound without drop and without retrieve.frames', 'a method with both');
  if (made.reuse !== undefined && made.encode !== undefined)
    throw malformed(name, 'reuse without encode', 'a method with both');
  return made;
}

/** The parts of `owner` that `checks` names. Each is read once, so that the value which was checked is the one that is used. */
function checkedParts(
  name: unknown,
  owner: object,
  checks: Readonly<Record<string, Check>>,
  prefix: string,
): Record<string, unknown> {
  const parts: Record<string, unknown> = {};
  for (const [part, check] of Object.entries(checks)) {
    const value = read(owner, part, prefix === '' ? 'a method' : prefix.slice(0, -1));
    if (value === undefined && !check.required) continue;
    if (!isAccepted(check, value)) {
      const hint = typeof value === 'function' && Object.hasOwn(GROUPS, part) ? `; the function is ${part}.select` : '';
      throw malformed(name, `${check.expected} for ${prefix}${part}${hint}`, received(value));
    }
    parts[part] = typeof value === 'function' ? guarded(name, owner, prefix + part, value as Part) : value;
  }
  checkNames(name, owner, Object.keys(checks), prefix);
  return parts;
}

type Part = (...given: unknown[]) => unknown;

function guarded(name: unknown, owner: object, part: string, call: Part): Part {
  return (...given) => {
    try {
      return call.apply(owner, given);
    } catch (cause) {
      if (cause instanceof SparseVilaError) throw cause;
      const message = `${part} of method ${received(name)} threw an error: ${messageOf(cause)}`;
      throw new SparseVilaError('ERR_METHOD', message, { cause });
    }
  };
}

function read(owner: object, part: string, of: string): unknown {
  try {
    return (owner as Record<string, unknown>)[part];
  } catch (cause) {
    throw new SparseVilaError('ERR_METHOD', `${part} of ${of} threw when it was read: ${messageOf(cause)}`, { cause });
  }
}

/** Refuses a misspelled member, which would otherwise be ignored. */
function checkNames(name: unknown, owner: object, known: readonly string[], prefix: string): void {
  for (const member of namesOf(owner)) {
    const meant = known.includes(member) ? undefined : nearest(member, known);
    if (meant === undefined) continue;
    const whole = prefix === '' ? 'a method' : prefix.slice(0, -1);
    throw malformed(name, `${whole} made of ${known.join(', ')}`, `${received(member)}. Did you mean ${meant}?`);
  }
}

function namesOf(owner: object): string[] {
  try {
    return Object.keys(owner);
  } catch (cause) {
    throw new SparseVilaError('ERR_METHOD', `A method's parts cannot be listed: ${messageOf(cause)}`, { cause });
  }
}

function malformed(name: unknown, expected: string, found: string): SparseVilaError {
  return new SparseVilaError('ERR_METHOD', `Method ${received(name)}: expected ${expected}, received ${found}`);
}
