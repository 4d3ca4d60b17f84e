// The JSON texts that a schema accepts, as an expression. Where a schema allows several ways to write a value, one is written: properties in the
// schema's order with further ones after them, numbers in decimals, constants as JSON.stringify writes them. All that is written is valid.
// Source: JSON Schema 2020-12 (core and validation).

import { received } from '../errors';
import { type Automaton, accepts, allBut, both, lengths } from './automaton';
import type { Expression, Expressions } from './expression';
import { FORMATS } from './formats';
import { type JsonText, jsonText } from './json_text';
import {
  checkKeywords,
  countOf,
  has,
  type JsonType,
  keywordsOf,
  keywordValue,
  listAt,
  numberOf,
  refusedAt,
  type Schema,
  type SchemaObject,
  schemasOf,
  textsOf,
  typeOf,
  typesOf,
} from './keywords';
import { numberAutomaton } from './numbers';
import { areApart } from './one_of';
import { patternAutomaton } from './pattern';
import { withoutDeadEnds } from './productive';

/** Maximum depth of nested schemas, and number of schemas of which one is made. */
const [MOST_DEPTH, MOST_SCHEMAS] = [100, 20_000];
/** Maximum number of properties of an object, and of items that have schemas of their own. */
const MOST_MEMBERS = 500;
const ROOT = '#';

/** @throws SparseVilaError `ERR_OPTION_INVALID` for a schema that is invalid, unsupported, too large, or accepts no value */
export function schemaExpression(e: Expressions, schema: unknown): Expression {
  const compiler = compile(e, schema);
  const whole = withoutDeadEnds(e, compiler.whole, compiler.references);
  if (whole === e.fail)
    throw refusedAt(ROOT, 'a schema that some JSON text of finite length satisfies', 'one that none does');
  return whole;
}

interface Compiler {
  readonly e: Expressions;
  readonly json: JsonText;
  /** The value of a schema inside a list or an object. */
  inside(schema: unknown, path: string): Expression;
}

function compile(e: Expressions, root: unknown) {
  const json = jsonText(e);
  const references = new Map<Expression, () => Expression>();
  const known = new Map<string, Expression>();
  const open: (() => void)[] = [];
  let count = 0;
  let depth = 0;

  /** A reference to what is compiled later, so that a schema may contain itself. */
  const inside: Compiler['inside'] = (schema, path) => {
    const found = known.get(path);
    if (found !== undefined) return found;
    let made: Expression = e.fail;
    const target = (): Expression => made;
    const reference = e.reference(false, target);
    known.set(path, reference);
    references.set(reference, target);
    open.push(() => {
      made = value(schema, path, new Set());
    });
    return reference;
  };
  const value = (given: unknown, path: string, refs: ReadonlySet<string>): Expression => {
    if (++count > MOST_SCHEMAS) throw refusedAt(path, `at most ${MOST_SCHEMAS} schemas`, 'more');
    if (path.split('/').length > 2 * MOST_DEPTH || ++depth > MOST_DEPTH)
      throw refusedAt(ROOT, `schemas of at most ${MOST_DEPTH} levels`, 'more');
    const schema = checkKeywords(given, path);
    const made = typeof schema === 'boolean' ? (schema ? json.any : e.fail) : ofObject(schema, path, refs);
    depth--;
    return made;
  };
  const ofObject = (schema: SchemaObject, path: string, refs: ReadonlySet<string>): Expression => {
    for (const name of ['$defs', 'definitions'])
      for (const [key, own] of schemasOf(schema, path, name)) inside(own, `${path}/${name}/${escaped(key)}`);
    if (has(schema, '$ref')) {
      const to = targetOf(root, schema.$ref, path);
      // A value cannot be its own alternative: what is left are the other ones.
      return refs.has(to.path) ? e.fail : value(to.schema, to.path, new Set([...refs, to.path]));
    }
    for (const name of ['anyOf', 'oneOf', 'allOf']) {
      const list = listAt(schema, path, name);
      if (list === undefined) continue;
      if (name === 'allOf' && list.length > 1)
        throw refusedAt(`${path}/allOf`, 'one schema', `${list.length}, which are not supported`);
      if (name === 'oneOf') areApart(list, `${path}/oneOf`, (ref) => targetOf(root, ref, path).schema);
      return e.choice(...list.map((one, i) => value(one, `${path}/${name}/${i}`, refs)));
    }
    if (keywordsOf(schema).length === 0) return json.any;
    const types = typesOf(schema, path);
    if (has(schema, 'const')) return constants([schema.const], types, schema, { e, json, inside });
    const list = listAt(schema, path, 'enum');
    if (list !== undefined) return constants(list, types, schema, { e, json, inside });
    return e.choice(...types.map((type) => ofType(type, schema, path, { e, json, inside })));
  };
  const whole = value(root, ROOT, new Set());
  for (let next = open.pop(); next !== undefined; next = open.pop()) next();
  return { whole, references };
}

/** The schema that a `$ref` names. */
function targetOf(root: unknown, ref: unknown, path: string): { schema: unknown; path: string } {
  const expected = 'a reference into this schema ("#" or "#/…")';
  if (typeof ref !== 'string' || !/^#(\/|$)/.test(ref)) throw refusedAt(`${path}/$ref`, expected, received(ref));
  let schema = root;
  for (const part of ref.split('/').slice(1)) {
    let name = part;
    try {
      name = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
    } catch {
      // It is no percent-encoding, so it is the name as it stands.
    }
    const isThere = typeof schema === 'object' && schema !== null && Object.hasOwn(schema, name);
    if (!isThere) throw refusedAt(`${path}/$ref`, 'a reference to a part of this schema', received(ref));
    schema = (schema as SchemaObject)[name];
  }
  return { schema, path: ref };
}

const escaped = (name: string): string => name.replaceAll('~', '~0').replaceAll('/', '~1');

/** Given values that have one of the types. */
function constants(
  values: readonly unknown[],
  types: readonly JsonType[],
  schema: SchemaObject,
  { e }: Compiler,
): Expression {
  const isOf = (value: unknown): boolean => {
    const type = typeOf(value);
    return types.includes(type) || (type === 'integer' && types.includes('number'));
  };
  const own = has(schema, 'type') ? values.filter(isOf) : values;
  return e.group(e.words(own.map((value) => JSON.stringify(value))));
}

function ofType(type: JsonType, schema: SchemaObject, path: string, compiler: Compiler): Expression {
  const { e, json } = compiler;
  switch (type) {
    case 'null':
      return e.words(['null']);
    case 'boolean':
      return e.words(['true', 'false']);
    case 'integer':
    case 'number':
      return numberExpression(type, schema, path, json);
    case 'string':
      return stringExpression(schema, path, json);
    case 'array':
      return arrayExpression(schema, path, compiler);
    case 'object':
      return objectExpression(schema, path, compiler);
  }
}

function numberExpression(type: 'integer' | 'number', schema: SchemaObject, path: string, json: JsonText): Expression {
  const [minimum, maximum, above, below, divisor] = [
    ...['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  ].map((name) => numberOf(schema, path, name));
  if (divisor !== undefined && !(Number.isInteger(divisor) && divisor > 0))
    throw refusedAt(`${path}/multipleOf`, 'a positive integer', received(divisor));
  const isInteger = type === 'integer' || divisor !== undefined;
  if ([minimum, maximum, above, below, divisor].every((one) => one === undefined))
    return isInteger ? json.integer : json.number;
  const min = Math.max(minimum ?? Number.NEGATIVE_INFINITY, above ?? Number.NEGATIVE_INFINITY);
  const max = Math.min(maximum ?? Number.POSITIVE_INFINITY, below ?? Number.POSITIVE_INFINITY);
  const limits = { min, max, isAboveMin: above === min, isBelowMax: below === max };
  return json.textOf(numberAutomaton({ isInteger, ...limits, divisor: divisor ?? 1 }));
}

/** The automaton of a string's keywords other than its length; undefined if there are none. */
function contentOf(schema: SchemaObject, path: string): Automaton | undefined {
  const isText = (value: unknown): value is string => typeof value === 'string';
  const pattern = keywordValue(schema, path, 'pattern', 'a text', isText);
  const format = keywordValue(
    schema,
    path,
    'format',
    `one of ${Object.keys(FORMATS).join(', ')}`,
    (value): value is string => isText(value) && Object.hasOwn(FORMATS, value),
  );
  const own = [pattern, format === undefined ? undefined : FORMATS[format]].filter((one) => one !== undefined);
  const [first, second] = own.map(patternAutomaton);
  return first && second ? both(first, second) : first;
}

function stringExpression(schema: SchemaObject, path: string, json: JsonText): Expression {
  const min = countOf(schema, path, 'minLength') ?? 0;
  const max = countOf(schema, path, 'maxLength') ?? Number.POSITIVE_INFINITY;
  const content = contentOf(schema, path);
  if (content === undefined) return json.string(min, max);
  const isBounded = min > 0 || max !== Number.POSITIVE_INFINITY;
  return json.stringOf(isBounded ? both(content, lengths(min, max)) : content);
}

function arrayExpression(schema: SchemaObject, path: string, { e, json, inside }: Compiler): Expression {
  const first = listAt(schema, path, 'prefixItems') ?? [];
  checkMembers(first.length, path);
  const min = countOf(schema, path, 'minItems') ?? 0;
  const max = countOf(schema, path, 'maxItems') ?? Number.POSITIVE_INFINITY;
  const rest = has(schema, 'items') ? inside(schema.items, `${path}/items`) : json.any;
  const [open, close] = [e.byte(0x5b), e.sequence(json.space, e.byte(0x5d))];
  const comma = e.sequence(e.byte(0x2c), json.space);
  const more = (item: Expression): Expression => e.sequence(comma, item);
  /** What follows `count` items. */
  const after = (count: number): Expression => {
    const own = first[count];
    const end = count >= min && count <= max ? close : e.fail;
    if (count >= max) return end;
    if (own === undefined && count > 0)
      return e.sequence(e.repeat(more(rest), Math.max(0, min - count), max - count), close);
    const item = own === undefined ? rest : inside(own, `${path}/prefixItems/${count}`);
    return e.choice(end, e.sequence(count === 0 ? e.sequence(json.space, item) : more(item), after(count + 1)));
  };
  return e.sequence(open, after(0));
}

function objectExpression(schema: SchemaObject, path: string, { e, json, inside }: Compiler): Expression {
  const required = new Set(textsOf(schema, path, 'required') ?? []);
  const others: Schema = has(schema, 'additionalProperties') ? (schema.additionalProperties as Schema) : true;
  const properties = schemasOf(schema, path, 'properties').map(([name, own]) => ({
    name,
    value: inside(own, `${path}/properties/${escaped(name)}`),
  }));
  const other = inside(others, `${path}/additionalProperties`);
  const declared = new Set(properties.map(({ name }) => name));
  for (const name of required) if (!declared.has(name)) properties.push({ name, value: other });
  checkMembers(properties.length, path);
  checkCounts(schema, path, properties.length, required.size, others);
  const names = has(schema, 'propertyNames') ? namesOf(schema.propertyNames, `${path}/propertyNames`) : undefined;
  const isName = (name: string): boolean => names === undefined || accepts(names, name);
  const unlike = allBut(properties.map(({ name }) => name));
  const further = e.sequence(json.stringOf(names === undefined ? unlike : both(names, unlike)), json.colon, other);
  const comma = e.sequence(e.byte(0x2c), json.space);
  const close = e.sequence(json.space, e.byte(0x7d));
  const moreFurther = e.repeat(others === false ? e.fail : e.sequence(comma, further), 0);
  let first = e.choice(close, e.sequence(json.space, further, moreFurther, close));
  let later = e.sequence(moreFurther, close);
  for (const { name, value } of properties.toReversed()) {
    const key = isName(name) ? e.words([JSON.stringify(name)]) : e.fail;
    const member = e.sequence(key, json.colon, value, later);
    const isRequired = required.has(name);
    first = e.choice(e.sequence(json.space, member), isRequired ? e.fail : first);
    later = e.choice(e.sequence(comma, member), isRequired ? e.fail : later);
  }
  return e.sequence(e.byte(0x7b), first);
}

function checkMembers(count: number, path: string): void {
  if (count > MOST_MEMBERS) throw refusedAt(path, `at most ${MOST_MEMBERS} properties or items`, String(count));
}

/** Numbers of properties are not counted while an object is written: bounds are accepted where they always hold. */
function checkCounts(schema: SchemaObject, path: string, declared: number, required: number, others: Schema): void {
  const min = countOf(schema, path, 'minProperties') ?? 0;
  const max = countOf(schema, path, 'maxProperties') ?? Number.POSITIVE_INFINITY;
  if (min > required)
    throw refusedAt(`${path}/minProperties`, `at most ${required}, the number of required properties,`, String(min));
  const most = others === false ? declared : Number.POSITIVE_INFINITY;
  if (max >= most) return;
  throw refusedAt(
    `${path}/maxProperties`,
    'at least the number of properties, and additionalProperties: false',
    String(max),
  );
}

/** The automaton of property names. */
function namesOf(given: unknown, path: string): Automaton {
  const schema = checkKeywords(given, path);
  if (schema === true) return lengths(0, Number.POSITIVE_INFINITY);
  const known = ['type', 'pattern', 'format', 'minLength', 'maxLength'];
  const isString = typeof schema === 'object' && typesOf(schema, path).includes('string');
  if (!isString || keywordsOf(schema).some((name) => !known.includes(name)))
    throw refusedAt(path, `the schema of a string with ${known.join(', ')}`, received(given));
  const min = countOf(schema, path, 'minLength') ?? 0;
  const max = countOf(schema, path, 'maxLength') ?? Number.POSITIVE_INFINITY;
  const content = contentOf(schema, path);
  return content === undefined ? lengths(min, max) : both(content, lengths(min, max));
}
