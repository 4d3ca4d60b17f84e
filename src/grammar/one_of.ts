// `oneOf`: the alternatives are accepted if no value can satisfy two of them, because the texts of each are written without regard to the others.

import { spend } from './effort';
import {
  checkKeywords,
  has,
  type JsonType,
  listAt,
  refusedAt,
  type SchemaObject,
  schemasOf,
  textsOf,
  typesOf,
} from './keywords';

interface Alternative {
  readonly schema: SchemaObject;
  readonly types: ReadonlySet<JsonType>;
  /** The values that it names, as JSON; undefined if it names none. */
  readonly values: ReadonlySet<string> | undefined;
}

/** Steps of comparing two alternatives. */
const PAIR_STEPS = 20;

type Resolve = (ref: unknown) => unknown;

/** @throws SparseVilaError `ERR_OPTION_INVALID` if two of the schemas may accept one value */
export function areApart(list: readonly unknown[], path: string, resolve: Resolve): void {
  const alternatives = list.map((one, i) => alternativeOf(one, `${path}/${i}`, resolve));
  for (const [i, one] of alternatives.entries()) {
    for (const [j, other] of alternatives.slice(i + 1).entries()) {
      if (isApart(one, other, path, resolve)) continue;
      const expected =
        'alternatives with different types or constants, or objects with different constants for a required property';
      throw refusedAt(path, expected, `${i} and ${i + 1 + j}, which may accept one value. Use anyOf`);
    }
  }
}

/** A schema behind references. */
function alternativeOf(given: unknown, path: string, resolve: Resolve): Alternative {
  let schema = checkKeywords(given, path);
  for (let steps = 0; typeof schema === 'object' && has(schema, '$ref'); steps++) {
    if (steps > 20) throw refusedAt(path, 'references that end', 'a cycle');
    schema = checkKeywords(resolve(schema.$ref), path);
  }
  if (typeof schema === 'boolean') throw refusedAt(path, 'a schema with a type', String(schema));
  const values = has(schema, 'const') ? [schema.const] : listAt(schema, path, 'enum');
  const isOpen = ['anyOf', 'oneOf', 'allOf'].some((name) => has(schema as SchemaObject, name));
  if (isOpen) throw refusedAt(path, 'a schema with a type', 'another list of alternatives');
  return {
    schema,
    types: new Set(typesOf(schema, path)),
    values: values && new Set(values.map((value) => JSON.stringify(value))),
  };
}

function isApart(one: Alternative, other: Alternative, path: string, resolve: Resolve): boolean {
  spend(one.values?.size ?? PAIR_STEPS);
  if (one.values !== undefined && other.values !== undefined)
    return [...one.values].every((value) => !other.values?.has(value));
  if (one.values !== undefined || other.values !== undefined) return !shareType(one, other);
  if (!shareType(one, other)) return true;
  const shared = [...one.types].filter((type) => other.types.has(type));
  if (shared.length > 1 || shared[0] !== 'object') return false;
  const common = (textsOf(one.schema, path, 'required') ?? []).filter((name) =>
    textsOf(other.schema, path, 'required')?.includes(name),
  );
  return common.some((name) => {
    const [mine, its] = [one, other].map(({ schema }) => {
      const own = schemasOf(schema, path, 'properties').find(([key]) => key === name)?.[1];
      return own === undefined ? undefined : alternativeOf(own, `${path}/${name}`, resolve).values;
    });
    return mine !== undefined && its !== undefined && [...mine].every((value) => !its.has(value));
  });
}

/** Whether a value may have a type of both: an integer is a number. */
function shareType(one: Alternative, other: Alternative): boolean {
  const all = ({ types, values }: Alternative): Set<string> => {
    const own = values === undefined ? types : new Set([...values].map((value) => typeName(JSON.parse(value))));
    return new Set([...own].map((type) => (type === 'integer' ? 'number' : type)));
  };
  const its = all(other);
  return [...all(one)].some((type) => its.has(type));
}

function typeName(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}
