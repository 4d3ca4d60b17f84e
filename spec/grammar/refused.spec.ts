// What a schema may not be: unsupported keywords, invalid values, and schemas made to cost time or memory. Each is refused by name.

import { type ConstrainedModel, checkFormat, compileFormat, constraintOf } from '../../src/grammar/constraint';
import { spend } from '../../src/grammar/effort';
import type { Expression } from '../../src/grammar/expression';
import { errorOf } from '../image/fixtures';

const refusal = async (schema: unknown) => {
  const error = await errorOf(async () => checkFormat({ type: 'schema', schema }));
  return [error.code, error.message];
};

it.each([
  ['a keyword', { type: 'array', uniqueItems: true }, 'uniqueItems'],
  ['a nested keyword, with its place', { properties: { a: { not: {} } } }, '#/properties/a'],
  ['a keyword of other drafts', { type: 'string', nullable: true }, 'nullable'],
  ['a misspelled keyword', { type: 'string', maxLenght: 3 }, 'did you mean maxLength'],
  ['a keyword of an unused definition', { type: 'null', $defs: { a: { if: {} } } }, '#/$defs/a'],
  ['a type', { type: 'foo' }, '"foo"'],
  ['a value that is no schema', { items: 3 }, '#/items'],
  ['a bound', { minimum: '3' }, '#/minimum'],
  ['a length', { maxLength: -1 }, '#/maxLength'],
  ['a format', { type: 'string', format: 'iri' }, '#/format'],
  ['a fraction as divisor', { type: 'number', multipleOf: 0.1 }, 'multipleOf'],
  ['several parts of allOf', { allOf: [{ type: 'string' }, { minLength: 2 }] }, 'allOf'],
  [
    'a restriction beside a reference',
    { $ref: '#/$defs/a', minLength: 1, $defs: { a: { type: 'string' } } },
    'minLength',
  ],
  ['a restriction beside constants', { enum: [1, 2], minimum: 2 }, 'minimum'],
  ['alternatives that meet', { oneOf: [{ type: 'integer' }, { type: 'number' }] }, 'Use anyOf'],
  ['a reference to another file', { $ref: 'other.json' }, 'other.json'],
  ['a reference to nothing', { $ref: '#/$defs/a' }, '#/$defs/a'],
  ['a count of properties', { type: 'object', minProperties: 2 }, 'minProperties'],
  ['a reference to itself', { $ref: '#' }, 'none does'],
  [
    'a cycle of references',
    { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } } },
    'none does',
  ],
  ['an object that needs itself', { type: 'object', properties: { a: { $ref: '#' } }, required: ['a'] }, 'none does'],
  ['bounds without a number', { type: 'integer', minimum: 3, maximum: 2 }, 'none does'],
  ['a pattern that no length meets', { type: 'string', pattern: '^a{5}$', maxLength: 4 }, 'none does'],
  ['nothing', false, 'none does'],
])('%s', async (_, schema, message) => {
  expect(await refusal(schema)).toEqual(['ERR_OPTION_INVALID', expect.stringContaining(message)]);
});

describe('hostile schemas', () => {
  const nested = (levels: number): object => {
    let schema: object = { type: 'null' };
    for (let i = 0; i < levels; i++) schema = { type: 'array', items: schema };
    return schema;
  };
  const doubling = Object.fromEntries(
    Array.from({ length: 40 }, (_, i) => [
      `d${i}`,
      i === 39 ? { type: 'null' } : { anyOf: [1, 2].map(() => ({ $ref: `#/$defs/d${i + 1}` })) },
    ]),
  );
  const cyclic: Record<string, unknown> = { type: 'object' };
  cyclic.properties = { cyclic };

  it.each([
    ['5,000 levels', nested(5000)],
    ['alternatives that double 40 times', { $ref: '#/$defs/d0', $defs: doubling }],
    ['an object in a cycle', cyclic],
    [
      '10,000 properties',
      { properties: Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`p${i}`, true])) },
    ],
    ['a constant of a megabyte', { const: 'x'.repeat(1e6) }],
    ['a length of a pattern', { type: 'string', pattern: '^[a-z]+$', maxLength: 1e9 }],
    ['a number', { type: 'integer', multipleOf: 1e9 + 7 }],
    [
      'a getter that throws',
      {
        get type() {
          throw new Error('no');
        },
      },
    ],
    ['a bigint', { const: 1n }],
  ])('%s', async (_, schema) => {
    expect((await refusal(schema))[0]).toBe('ERR_OPTION_INVALID');
  });

  const many = (count: number, schema: (i: number) => unknown): unknown[] =>
    Array.from({ length: count }, (_, i) => schema(i));
  const properties = (count: number, schema: (i: number) => unknown) => ({
    properties: Object.fromEntries(many(count, schema).map((one, i) => [`p${i}`, one])),
  });

  it.each([
    ['patterns', properties(50, (i) => ({ type: 'string', pattern: `^(a|b)*a(a|b){9}${i}$` }))],
    ['lengths', properties(400, (i) => ({ type: 'string', pattern: '^[a-z]*$', maxLength: 19_000 - i }))],
    ['alternatives', { anyOf: many(3000, (i) => ({ required: [`k${i}`] })) }],
    ['comparisons', { oneOf: many(1500, (i) => ({ properties: { k: { const: i } }, required: ['k'] })) }],
  ])('work of many %s', async (_, schema) => {
    expect(await refusal(schema)).toEqual(['ERR_OPTION_INVALID', expect.stringContaining('2000000 steps')]);
  });

  it('a pattern of 100,000 characters', async () => {
    const [code, message] = await refusal({ type: 'string', pattern: 'a|'.repeat(50_000) });
    expect([code, message]).toEqual(['ERR_OPTION_INVALID', expect.stringContaining('20000 characters')]);
  });

  it('tokens whose mask is too much work', () => {
    const { e, start } = compileFormat({ type: 'json' });
    const slow = {
      ...e,
      derivative: (of: Expression, byte: number) => {
        spend(1_000_000);
        return e.derivative(of, byte);
      },
    };
    const tokenizer = {
      bytes: { bytesOf: (id: number) => Buffer.from([id]), isSpecial: () => false, leadingSpaces: 0 },
    };
    const model = { tokenizer, stopIds: [], decoder: { config: { vocabSize: 128 } } };
    const constraint = constraintOf(model as unknown as ConstrainedModel, { e: slow, start });
    expect(() => constraint.allowed()).toThrow('2000000 steps');
  });

  it.each([
    ['20,000 constants', { enum: Array.from({ length: 20_000 }, (_, i) => `v${i}`) }],
    ['a billion items', { type: 'array', minItems: 1e9, items: { type: 'null' } }],
    ['a billion characters', { type: 'string', minLength: 1e9 }],
    ['an alternative that is itself', { anyOf: [{ $ref: '#' }, { type: 'null' }] }],
  ])('are taken where they cost nothing: %s', (_, schema) => {
    const { e, start } = compileFormat({ type: 'schema', schema });
    expect(start).not.toBe(e.fail);
  });
});

it.each([
  [{ type: 'xml' }, 'ERR_OPTION_INVALID'],
  [{ type: 'json', schema: {} }, 'ERR_OPTION_INVALID'],
  [{ type: 'schema' }, 'ERR_OPTION_MISSING'],
  [{}, 'ERR_OPTION_MISSING'],
  ['json', 'ERR_OPTION_INVALID'],
  [new Date(Number.NaN), 'ERR_OPTION_INVALID'],
  [new Date(0), 'ERR_OPTION_INVALID'],
])('the format %j', async (format, code) => {
  expect((await errorOf(async () => checkFormat(format))).code).toBe(code);
});
