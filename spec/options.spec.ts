// Validation of options: accepted values, refusals, and hostile objects.

import { runInNewContext } from 'node:vm';
import { SparseVilaError } from '../src/errors';
import {
  type Check,
  COUNT,
  checkOptions,
  checkValue,
  FUNCTION,
  finite,
  integer,
  listOf,
  NAME,
  nearest,
  OBJECT,
  oneOf,
  SEED,
  SIGNAL,
  TEXT,
} from '../src/options';
import * as methods from '../src/sparsity/methods';

interface Options {
  readonly model?: string;
  readonly tokens?: number;
}

const CHECKS = { model: NAME, tokens: integer(1, 8) };
const thrower = (): never => {
  throw new Error('called');
};

function errorOf(body: () => unknown): SparseVilaError {
  try {
    body();
  } catch (error) {
    if (error instanceof SparseVilaError) return error;
    throw error;
  }
  throw new Error('expected an error');
}

test('returns a copy of what is given, read once', () => {
  let reads = 0;
  const options = Object.defineProperty({ tokens: undefined }, 'model', {
    enumerable: true,
    get: () => `read ${++reads}`,
  }) as unknown as Options;
  expect(checkOptions('x', options, CHECKS)).toEqual({ model: 'read 1' });
  expect(reads).toBe(1);
  expect(checkOptions<Options>('x', undefined, CHECKS)).toEqual({});
});

test.each<[unknown, RegExp]>([
  [{ modle: 'a' }, /only the options model, tokens, received modle\. Did you mean model\?$/],
  [{ 'a\u001b[0m': 1 }, /received "a\\u001b\[0m"\.$/],
  [{ __proto__x: 1 }, /received __proto__x\.$/],
  [{ constructor: 1 }, /received constructor\./],
  [{ tokens: 9 }, /x: expected an integer from 1 to 8 for tokens, received 9\.$/],
  [{ tokens: '3' }, /received "3"/],
  [{ tokens: 3n }, /received 3n/],
  [{ tokens: Number.NaN }, /received NaN/],
  [{ tokens: null }, /received null/],
  [{ tokens: { valueOf: thrower, toString: thrower } }, /for tokens, received \{/],
  [{ model: '' }, /at least one character for model, received ""/],
  [null, /a plain object of options, received null/],
  ['model', /a plain object of options, received "model"/],
  [[], /a plain object of options, received \[\]/],
  [Promise.resolve({ tokens: 1 }), /a plain object of options, received Promise/],
  [new Map([['tokens', 1]]), /a plain object of options, received \[?Map/],
  [/x/, /a plain object of options/],
  [Object.create({ tokens: 1 }), /a plain object of options/],
  [() => 1, /received a function/],
  [
    {
      get model() {
        return thrower();
      },
    },
    /reading them threw: called/,
  ],
  [new Proxy({}, { ownKeys: thrower }), /reading them threw: called/],
])('refuses %#', (options, message) => {
  const error = errorOf(() => checkOptions('x', options as Options, CHECKS));
  expect([error.code, error.message]).toEqual(['ERR_OPTION_INVALID', expect.stringMatching(message)]);
});

test('options of another realm, and without a prototype, are read', () => {
  const foreign = runInNewContext('({ tokens: 2 })') as Options;
  expect(checkOptions('x', foreign, CHECKS)).toEqual({ tokens: 2 });
  expect(checkOptions('x', Object.assign(Object.create(null), { tokens: 3 }) as Options, CHECKS)).toEqual({
    tokens: 3,
  });
});

test('a required option that is absent has its own code', () => {
  const checks = { model: { ...NAME, required: true as const }, tokens: COUNT };
  const error = errorOf(() => checkOptions<Options>('x', { tokens: 1 }, checks));
  expect([error.code, error.message]).toEqual([
    'ERR_OPTION_MISSING',
    expect.stringMatching(/for model, received none/),
  ]);
});

const sparse = [1, 2, 3];
delete sparse[1];
const cases: [string, Check, readonly unknown[], readonly unknown[]][] = [
  ['integer', integer(0), [0, 2 ** 53 - 1], [-1, 0.5, 2 ** 53, '1', null, Number.POSITIVE_INFINITY]],
  ['finite', finite(0), [0, 0.5], [-1, Number.NaN, Number.POSITIVE_INFINITY, '1']],
  ['SEED', SEED, [0], [-1, 2 ** 53]],
  ['oneOf', oneOf('a', 'b'), ['a'], ['c', ['a'], null, new String('a')]],
  ['TEXT', TEXT, ['', 'a'], [1, new String('a'), null]],
  ['list', listOf('counts', COUNT, 1), [[1], [1, 2]], [[], [0], sparse, 'ab', { length: 1, 0: 1 }]],
  ['SIGNAL', SIGNAL, [new AbortController().signal], [{}, { aborted: false, throwIfAborted: thrower }, null]],
  ['FUNCTION', FUNCTION, [thrower], [{}, 'f']],
  ['OBJECT', OBJECT, [{}], [[], null, 'a']],
];
test.each(cases)('%s', (_, check, yes, no) => {
  for (const value of yes) checkValue('x', 'y', value, check);
  for (const value of no) expect(errorOf(() => checkValue('x', 'y', value, check)).code).toBe('ERR_OPTION_INVALID');
});

test('nearest finds only typing errors', () => {
  const words = ['maxTokens', 'temperature', 'topK', 'stop'];
  expect(['maxtokens', 'maxTokns', 'temprature', 'topk', 'stopp'].map((name) => nearest(name, words))).toEqual([
    'maxTokens',
    'maxTokens',
    'temperature',
    'topK',
    'stop',
  ]);
  expect(['images', 'x', '', 'a'.repeat(1e6)].map((name) => nearest(name, words))).toEqual(Array(4).fill(undefined));
});

test.each(methods.METHODS.map((entry) => [entry.name, entry] as const))('%s refuses invalid options', (_, entry) => {
  for (const options of [null, 7, [], 'x', { prefillSparsty: 0.5 }, { positions: {} }, { prefillSparsity: thrower }]) {
    try {
      entry.create(options as never);
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_OPTION_INVALID' });
    }
  }
});
