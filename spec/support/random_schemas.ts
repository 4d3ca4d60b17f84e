// Random JSON schemas, a vocabulary of random words, and random answers that a constraint holds to a schema.

import { type CheckedFormat, type ConstrainedModel, constraintOf } from '../../src/grammar/constraint';
import { uniform } from '../../src/text/random';

type Random = () => number;

const pick = <T>(random: Random, list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
const some = <T>(random: Random, list: readonly T[]): T[] => list.filter(() => random() < 0.5);
const integer = (random: Random, from: number, to: number): number => from + Math.floor(random() * (to - from + 1));

const NAMES = ['a', 'name', 'x y', 'naïve', 'quote"', 'back\\slash', 'line\nbreak', '👍', 'constructor', ''];
const VALUES = [null, true, 'red', 'a "b"\n', '', -3, 2.5, 1e21, [], [1, 'x'], { a: { b: null } }, '你好'];
const PATTERNS = [
  ...['^[a-c]{1,4}$', 'b.d', '^(foo|ba+r)(-\\d{2}){0,2}$', '^\\w+@\\w+$', '"', '^[^a-z]{2,5}$', '^(?!ab)[a-z]{2,6}$'],
  ...['^\\u{1F600}?\\\\+$', '^$', 'x*', '^.{3}$', '^(?:(?:a|b)*c){1,3}$', '^[\\s\\-]+$', '\\n', '^[À-ÿ一-龥]{1,3}$'],
];
const FORMATS = ['date', 'time', 'date-time', 'email', 'hostname', 'ipv4', 'ipv6', 'uri', 'uuid', 'duration'];

const numbers = (random: Random): Record<string, unknown> => {
  const type = pick(random, ['integer', 'number']);
  const unit = pick(random, [1, 0.5, 0.001, 1e6, 1e-9, 12.345]);
  const low = type === 'integer' ? integer(random, -200, 50) : integer(random, -200, 50) * unit;
  const high = low + integer(random, 1, 300) * (type === 'integer' ? 1 : unit);
  return {
    type,
    ...(random() < 0.4 ? pick(random, [{ minimum: low }, { exclusiveMinimum: low }]) : {}),
    ...(random() < 0.4 ? pick(random, [{ maximum: high }, { exclusiveMaximum: high }]) : {}),
    ...(type === 'integer' && random() < 0.2 ? { multipleOf: integer(random, 1, 5) } : {}),
  };
};

const strings = (random: Random): Record<string, unknown> => {
  const [min, more] = [integer(random, 0, 6), integer(random, 0, 8)];
  const length = {
    ...(random() < 0.5 ? { minLength: min } : {}),
    ...(random() < 0.6 ? { maxLength: min + more } : {}),
  };
  return pick(random, [
    { type: 'string', ...length },
    { type: 'string', pattern: pick(random, PATTERNS) },
    { type: 'string', pattern: '^[a-z]+$', ...length },
    { type: 'string', format: pick(random, FORMATS) },
  ]);
};

const arrays = (random: Random, depth: number): Record<string, unknown> => {
  const first = random() < 0.3 ? { prefixItems: [schema(random, depth), schema(random, depth)] } : {};
  const min = integer(random, 0, 3);
  return {
    type: 'array',
    ...first,
    items: random() < 0.85 ? schema(random, depth) : random() < 0.5,
    ...('prefixItems' in first ? {} : { minItems: 0 }),
    ...(random() < 0.9 ? { maxItems: min + integer(random, 0, 3) } : {}),
  };
};

const objects = (random: Random, depth: number): Record<string, unknown> => {
  const names = some(random, NAMES).slice(0, 4);
  const others = pick(random, [false, false, undefined, { type: 'integer' }, { type: ['string', 'null'] }]);
  return {
    type: 'object',
    properties: Object.fromEntries(names.map((name) => [name, schema(random, depth)])),
    required: [...some(random, names), ...(others !== false && random() < 0.1 ? ['other'] : [])],
    ...(others === undefined ? {} : { additionalProperties: others }),
    ...(others !== false && random() < 0.3 ? { propertyNames: { pattern: '^[a-z]*$' } } : {}),
  };
};

function schema(random: Random, depth: number): Record<string, unknown> | boolean {
  const leaf = (): Record<string, unknown> =>
    pick(random, [
      () => numbers(random),
      () => strings(random),
      () => ({ type: pick(random, ['null', 'boolean', 'string', 'integer', 'number']) }),
      () => ({ enum: some(random, VALUES).concat([pick(random, VALUES)]) }),
      () => ({ const: pick(random, VALUES) }),
      () => ({ type: ['integer', 'null'], description: 'either', minimum: 0 }),
    ])();
  if (depth === 0) return leaf();
  return pick(random, [
    ...[leaf, leaf],
    () => objects(random, depth - 1),
    () => arrays(random, depth - 1),
    () => ({ anyOf: [schema(random, depth - 1), schema(random, depth - 1), { type: 'null' }] }),
    () => ({ allOf: [schema(random, depth - 1)], title: 'one' }),
    () => ({ oneOf: [{ type: 'boolean' }, strings(random), numbers(random)] }),
    () => ({ $ref: pick(random, ['#/$defs/leaf', '#/$defs/node']) }),
  ])();
}

/** A schema that depends on the seed alone. */
export function randomSchema(seed: number): Record<string, unknown> {
  const random = uniform(seed);
  const whole = pick(random, [() => objects(random, 2), () => objects(random, 3), () => arrays(random, 2)])();
  const node = {
    type: 'object',
    properties: { value: strings(random), next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] } },
    required: ['value'],
    additionalProperties: false,
  };
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', ...whole, $defs: { leaf: numbers(random), node } };
}

/** A byte-level vocabulary of `size` tokens with much punctuation of JSON inside tokens; the last id stops. */
export function randomVocabulary(size: number): ConstrainedModel & { readonly stop: number } {
  const random = uniform(1);
  const list: Uint8Array[] = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  const joints = [
    '": ',
    '",',
    '", "',
    '"}',
    '}]',
    '},{"',
    ' "',
    '":"',
    '\\n',
    '\\u00',
    'true',
    'null,',
    ' 1',
    '.5',
    '-',
    '\n  ',
    '你',
    '好"',
    '👍',
  ];
  const known = new Set<string>();
  const add = (text: string): void => {
    if (known.has(text)) return;
    known.add(text);
    list.push(Buffer.from(text));
  };
  for (const text of [
    ...joints,
    ...NAMES.filter((name) => name !== ''),
    ' '.repeat(40),
    'a'.repeat(30),
    '0'.repeat(20),
  ])
    add(text);
  while (list.length < size - 1) {
    const word = Array.from({ length: integer(random, 1, 9) }, () =>
      String.fromCharCode(97 + Math.floor(26 * random() ** 2)),
    ).join('');
    add(
      random() < 0.1
        ? pick(random, joints) + word
        : random() < 0.1
          ? word + pick(random, joints)
          : random() < 0.4
            ? ` ${word}`
            : word,
    );
  }
  const stop = size - 1;
  const none = new Uint8Array();
  const bytes = { bytesOf: (id: number) => list[id] ?? none, isSpecial: (id: number) => id >= stop, leadingSpaces: 0 };
  return { tokenizer: { bytes }, stopIds: [stop], decoder: { config: { vocabSize: size } }, stop };
}

export interface RandomAnswer {
  readonly text: string;
  readonly isFinished: boolean;
  readonly tokens: number;
}

/** What a model answers that draws any of the allowed tokens. */
export function randomAnswer(
  model: ReturnType<typeof randomVocabulary>,
  format: CheckedFormat,
  seed: number,
  maxTokens: number,
): RandomAnswer {
  const constraint = constraintOf(model, format);
  const random = uniform(seed);
  const parts: Uint8Array[] = [];
  while (parts.length < maxTokens) {
    const id = drawn(constraint.allowed(), random);
    if (id === model.stop) return { text: Buffer.concat(parts).toString(), isFinished: true, tokens: parts.length };
    parts.push(model.tokenizer.bytes.bytesOf(id));
    constraint.accept(id);
    if (constraint.isOver) return { text: Buffer.concat(parts).toString(), isFinished: true, tokens: parts.length };
  }
  return { text: Buffer.concat(parts).toString(), isFinished: false, tokens: parts.length };
}

/** The id of a random set bit; every second time one of the lowest ids, which are single bytes, so that short texts are common too. */
function drawn(bits: Uint32Array, random: Random): number {
  const ids: number[] = [];
  for (let id = 0; id < 32 * bits.length; id++) {
    const word = bits[id >> 5] as number;
    if (word === 0) id |= 31;
    else if ((word >>> (id & 31)) & 1) ids.push(id);
  }
  return ids[Math.floor(ids.length * (random() < 0.5 ? random() : random() ** 8))] as number;
}
