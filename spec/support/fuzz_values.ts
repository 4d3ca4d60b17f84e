// Seeded values for the fuzzer of the public API: options of right and wrong types, questions, pictures and signals.

import { readFileSync } from 'node:fs';
import * as api from '../../src';
import { imageFixture, scene } from './assets';

/** Numbers from 0 to 1 (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export type Random = () => number;
export type Maker = () => unknown;
export const REASONS = [new Error('aborted by the fuzzer'), 'a reason', 42, null];
export const bytes = readFileSync(scene(1));

export function pick<T>(random: Random, list: readonly T[]): T {
  return list[Math.floor(random() * list.length)] as T;
}

export const thrower = (): never => {
  throw new TypeError('thrown by the fuzzer \u001b[31m');
};
const revoked = (): unknown => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};

/** Values that almost no option accepts. */
const JUNK: readonly Maker[] = [
  ...[undefined, null, Number.NaN, -1, 0, 1e308, 2 ** 53, 2 ** 32 + 1, 0.5, 1e-40, true, 10n].map(
    (value) => () => value,
  ),
  ...['', ' ', 'x', 'NaN', '\u001b[31mred', '\u202e', '\0', 'y'.repeat(1e5), '\ud800', '__proto__'].map(
    (text) => () => text,
  ),
  () => [],
  () => [null, undefined],
  () => new Array(5),
  () => ({}),
  () => Symbol('fuzz'),
  () => () => 1,
  () => async () => [],
  () => thrower,
  () => new Proxy({}, { get: thrower, ownKeys: thrower, has: thrower, getPrototypeOf: thrower }),
  revoked,
  () => ({
    get name() {
      return thrower();
    },
    toString: thrower,
    valueOf: thrower,
    toJSON: thrower,
  }),
  () => ({ [Symbol.toPrimitive]: thrower, [Symbol.iterator]: thrower }),
  () => Object.create(null),
  () => new Date(Number.NaN),
  () => new Map([[1, 2]]),
  () => Int32Array.of(0, 1, 2),
  () => Float32Array.of(Number.NaN, 1),
  () => Buffer.alloc(0),
  () => new URL('ftp://x/y'),
  () => AbortSignal.abort('junk'),
  () => ({ aborted: false, throwIfAborted: thrower, addEventListener: thrower }),
  () => api.dense(),
  () => class {},
];

export const junk = (random: Random): unknown => pick(random, JUNK)();

/** Some of the options, sometimes with an invalid value. */
export function some(random: Random, good: Readonly<Record<string, Maker>>, share: number): Record<string, unknown> {
  const names = Object.keys(good).filter(() => random() < 0.4);
  return Object.fromEntries(names.map((name) => [name, random() < share ? junk(random) : good[name]?.()]));
}

/** The same, sometimes with an unknown name, or with an invalid value in place of the whole object. */
export function options(random: Random, good: Readonly<Record<string, Maker>>, share = 0.15): unknown {
  if (random() < 0.04) return junk(random);
  const made = some(random, good, share);
  const stray = random() < 0.04 ? pick(random, ['metod', 'max_tokens', 'toString', '\u001b', 'signl']) : undefined;
  return stray === undefined ? made : { ...made, [stray]: junk(random) };
}

export function image(random: Random): unknown {
  return pick<Maker>(random, [
    () => scene(Math.floor(random() * 24)),
    () => scene(0),
    () => bytes,
    () => ({ data: new Uint8Array(12).fill(9), width: 2, height: 2, channels: 3 }),
    () => ({ data: new Uint8Array(5), width: 2, height: 2, channels: 3 }),
    () => imageFixture('truncated.png'),
    () => 'no/such.png',
    () => junk(random),
  ])();
}

export function question(random: Random): unknown {
  const texts = [
    'What is at b4?',
    'Where is the A?',
    'List the red objects.',
    '',
    'see <image>',
    '<|im_end|>',
    '\0',
    '\ud800',
    '😀',
  ];
  return random() < 0.85
    ? pick(random, [...texts, 'What is at b4?', 'red '.repeat(Math.floor(random() * 400))])
    : junk(random);
}

export const signal = (random: Random): AbortSignal => {
  const controller = new AbortController();
  const reason = pick(random, REASONS);
  const delay = random();
  if (delay < 0.1) controller.abort(reason);
  else if (delay < 0.2) queueMicrotask(() => controller.abort(reason));
  else if (delay < 0.3) setImmediate(() => controller.abort(reason));
  else if (delay < 0.6) setTimeout(() => controller.abort(reason), delay * 60).unref();
  return controller.signal;
};
