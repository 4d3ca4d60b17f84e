// Reads a JSON schema: which keywords there are, their values, and where they stand. A keyword that is not supported is refused by name.
// Source: JSON Schema 2020-12 (core and validation).

import { received, SparseVilaError } from '../errors';
import { nearest } from '../options';

export type SchemaObject = Readonly<Record<string, unknown>>;
export type Schema = boolean | SchemaObject;

export const TYPES = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object'] as const;
export type JsonType = (typeof TYPES)[number];

/** Keywords that restrict nothing. */
const ANNOTATIONS = [
  ...['title', 'description', 'default', 'examples', 'deprecated', 'readOnly', 'writeOnly', '$comment'],
  ...['$schema', '$id', '$defs', 'definitions'],
];
/** Keywords that stand alone, and those of one type. */
const WHOLE = ['$ref', 'anyOf', 'oneOf', 'allOf', 'enum', 'const', 'type'];
const OF_TYPE: Readonly<Record<string, readonly string[]>> = {
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  object: ['properties', 'required', 'additionalProperties', 'propertyNames', 'minProperties', 'maxProperties'],
};
const KNOWN = [...WHOLE, ...Object.values(OF_TYPE).flat()];

/** An error about the schema at `path`. */
export function refusedAt(path: string, expected: string, found: string): SparseVilaError {
  return new SparseVilaError('ERR_OPTION_INVALID', `format: at ${path}, expected ${expected}, received ${found}.`);
}

/** @throws SparseVilaError `ERR_OPTION_INVALID` for a value that is no schema, or an unsupported keyword */
export function checkKeywords(schema: unknown, path: string): Schema {
  if (typeof schema === 'boolean') return schema;
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
    throw refusedAt(path, 'a schema (an object, true or false)', received(schema));
  for (const name of Object.keys(schema)) {
    if (KNOWN.includes(name) || ANNOTATIONS.includes(name)) continue;
    const meant = nearest(name, KNOWN);
    const hint = meant === undefined ? '' : ` (did you mean ${meant}?)`;
    throw refusedAt(
      path,
      `keywords among ${KNOWN.join(', ')} and annotations`,
      `${received(name)}${hint}, which is not supported`,
    );
  }
  const own = schema as SchemaObject;
  const alone = WHOLE.find((name) => name !== 'type' && has(own, name));
  if (alone === undefined) return own;
  const beside = keywordsOf(own).filter((name) => name !== alone && !(name === 'type' && /enum|const/.test(alone)));
  if (beside.length === 0) return own;
  throw refusedAt(path, `no other restrictions beside ${alone}`, beside.join(', '));
}

export const has = (schema: SchemaObject, name: string): boolean => Object.hasOwn(schema, name);
export const keywordsOf = (schema: SchemaObject): string[] => KNOWN.filter((name) => has(schema, name));

/** The types that a schema names; without `type`, those of its keywords, or all. */
export function typesOf(schema: SchemaObject, path: string): readonly JsonType[] {
  if (!has(schema, 'type')) {
    const own = Object.keys(OF_TYPE).filter((type) => OF_TYPE[type]?.some((name) => has(schema, name)));
    return own.length > 0 ? (own as JsonType[]) : TYPES;
  }
  const { type } = schema;
  const list: readonly unknown[] = Array.isArray(type) ? type : [type];
  if (list.length > 0 && list.every((one) => TYPES.includes(one as JsonType))) return list as JsonType[];
  throw refusedAt(`${path}/type`, TYPES.map((one) => `"${one}"`).join(' or '), received(type));
}

/** The value of a keyword that a test accepts; undefined if it is absent. */
export function keywordValue<T>(
  schema: SchemaObject,
  path: string,
  name: string,
  expected: string,
  accepts: (value: unknown) => value is T,
): T | undefined {
  if (!has(schema, name)) return undefined;
  const value = schema[name];
  if (accepts(value)) return value;
  throw refusedAt(`${path}/${name}`, expected, received(value));
}

export const numberOf = (schema: SchemaObject, path: string, name: string): number | undefined =>
  keywordValue(schema, path, name, 'a number', (value): value is number => typeof value === 'number');

export const countOf = (schema: SchemaObject, path: string, name: string): number | undefined =>
  keywordValue(
    schema,
    path,
    name,
    'an integer of at least 0',
    (value): value is number => Number.isSafeInteger(value) && (value as number) >= 0,
  );

export const textsOf = (schema: SchemaObject, path: string, name: string): readonly string[] | undefined =>
  keywordValue(
    schema,
    path,
    name,
    'a list of texts',
    (value): value is readonly string[] => Array.isArray(value) && value.every((one) => typeof one === 'string'),
  );

export const listAt = (schema: SchemaObject, path: string, name: string): readonly unknown[] | undefined =>
  keywordValue(
    schema,
    path,
    name,
    'a list of at least one value',
    (value): value is readonly unknown[] => Array.isArray(value) && value.length > 0,
  );

/** The schemas of a keyword by name; empty if it is absent. */
export const schemasOf = (schema: SchemaObject, path: string, name: string): [string, unknown][] =>
  Object.entries(
    keywordValue(
      schema,
      path,
      name,
      'an object of schemas',
      (value): value is object => typeof value === 'object' && value !== null && !Array.isArray(value),
    ) ?? {},
  );

/** The type of a JSON value; an integer is also a number. */
export function typeOf(value: unknown): JsonType {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value as JsonType;
}
