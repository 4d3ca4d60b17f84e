// The error class, its codes and their page, and the display of values in messages.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRORS_PAGE, errorsPage } from '../scripts/errors';
import { codeOf, ERROR_CODES, messageOf, received, SparseVilaError } from '../src/errors';
import { packageFolder } from '../src/runtime/paths';

const UNSAFE = /(?![\n\t])\p{Cc}|[\u200e\u200f\u202a-\u202e\u2066-\u2069]/u;

describe('codes', () => {
  test('the page lists every code; `node dist/scripts/errors.js` writes it', () => {
    expect(readFileSync(ERRORS_PAGE, 'utf8')).toBe(errorsPage());
  });

  test('every code of the record is used (the compiler refuses any other)', () => {
    const folder = join(packageFolder(), 'src');
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => /\.ts$/.test(name));
    const text = files
      .filter((name) => name !== 'errors.ts')
      .map((name) => readFileSync(join(folder, name), 'utf8'))
      .join('\n');
    const quoted = new Set([...text.matchAll(/['"`](ERR_[A-Z0-9_]*[A-Z0-9])['"`]/g)].map(([, code]) => code as string));
    const composed = /ERR_WEIGHT_/;
    expect(Object.keys(ERROR_CODES).filter((code) => !quoted.has(code) && !composed.test(code))).toEqual([]);
  });
});

describe('messages', () => {
  const message = (text: string): string => new SparseVilaError('ERR_QUESTION', text).message;

  test('terminal escapes and direction marks are escaped; line breaks stay', () => {
    expect(message('a\u001b[31mb\u009bc\u202ed\u007fe\rf\u0000')).toBe('a\\x1b[31mb\\x9bc\\u202ed\\x7fe\\x0df\\x00');
    expect(message('one\n\ttwo')).toBe('one\n\ttwo');
    const error = new SparseVilaError('ERR_QUESTION', '\u001b]0;title\u0007');
    expect(error.stack).not.toMatch(UNSAFE);
  });

  test('lone surrogates are escaped, pairs stay', () => {
    expect(message('\ud800x 😀')).toBe('\\ud800x 😀');
  });

  test.each(['x', '\u001b', '😀', '\ud83d'])('at most 1,500 characters, cut in the middle: %j', (unit) => {
    const text = message(`begin ${unit.repeat(100_000)} end`);
    expect(text.length).toBeLessThanOrEqual(1500);
    expect(text).toMatch(/^begin .*….* end$/s);
    expect(text).not.toMatch(/\p{Surrogate}/u);
  });
});

describe('received', () => {
  const revoked = Proxy.revocable([], {});
  revoked.revoke();
  const thrower = (): never => {
    throw new Error('called');
  };
  test.each<[unknown, string]>([
    ['a "b"\n', '"a \\"b\\"\\n"'],
    [Number.NaN, 'NaN'],
    [-0, '-0'],
    [12n, '12n'],
    [10n ** 5000n, 'a bigint'],
    [Symbol('s'), 'Symbol(s)'],
    [undefined, 'undefined'],
    [null, 'null'],
    [thrower, 'a function'],
    [revoked.proxy, 'a proxy'],
    [new Proxy({}, { get: thrower, ownKeys: thrower, getPrototypeOf: thrower }), 'a proxy'],
    [
      { toString: thrower, toJSON: thrower },
      '{ toString: [Function: toString], toJSON: [Function: toJSON] }'
        .replace('Function: toString', 'Function: thrower')
        .replace('Function: toJSON', 'Function: thrower'),
    ],
    [Object.create(null, { x: { get: thrower, enumerable: true } }), '[Object: null prototype] { x: [Getter] }'],
    [
      {
        get [Symbol.toStringTag]() {
          return thrower();
        },
      },
      'an object that cannot be shown',
    ],
    [[1, 'a', {}], "[ 1, 'a', {} ]"],
    [Array(1e6), 'a list of 1000000'],
    [new Float32Array(3), 'a Float32Array of 12 bytes'],
    [new Error('why'), 'the error why'],
  ])('%#', (value, shown) => {
    expect(received(value)).toBe(shown);
  });

  test('the text is short and safe for long and hostile values', () => {
    for (const value of ['\u001b'.repeat(1e6), { ['\u009b'.repeat(5000)]: 1 }, Symbol('\u202e'.repeat(5000))]) {
      expect(received(value).length).toBeLessThanOrEqual(121);
      expect(received(value)).not.toMatch(UNSAFE);
    }
  });
});

test('codeOf and messageOf never throw', () => {
  const hostile = new Proxy(new Error('x'), {
    get: () => {
      throw new Error('called');
    },
    has: () => {
      throw new Error('called');
    },
  });
  expect(codeOf(hostile)).toBeUndefined();
  expect(messageOf(hostile)).toBe('a proxy');
  expect(messageOf({ toString: () => 'x' })).toMatch(/toString/);
  expect(messageOf('plain')).toBe('plain');
  expect(codeOf(new SparseVilaError('ERR_BUSY', 'x'))).toBe('ERR_BUSY');
});
