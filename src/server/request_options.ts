// Fields that chat completions and responses share: sampling, the form of the answer, sparsity. Fields of OpenAI's API that have no effect here are
// accepted; those that would change the answer are refused.

import type { AnswerFormat, EngineRequest, SparsityRequest } from '../engine/types';
import type { Refresh } from '../sparsity/method';
import { METHODS } from '../sparsity/methods';
import { type Fields, missing, wrongType } from './fields';
import { unsupportedField } from './request_error';

/** Accepted and ignored: they are for accounting, caching and routing. */
export const IGNORED = [
  ...['user', 'metadata', 'store', 'service_tier', 'safety_identifier', 'prompt_cache_key', 'prompt_cache_options'],
  ...['prompt_cache_retention', 'parallel_tool_calls', 'prediction', 'verbosity', 'moderation'],
] as const;
/** Fields of this server, and of vLLM and llama.cpp. */
export const EXTENSIONS = ['sparsity', 'cells', 'top_k', 'repetition_penalty'] as const;
/** Fields that would change the answer; empty values of them are accepted. */
export const REFUSED: Readonly<Record<string, string>> = {
  tools: 'tools',
  functions: 'tools',
  function_call: 'tools',
  audio: 'audio output',
  web_search_options: 'web search',
  frequency_penalty: 'frequency_penalty; use repetition_penalty',
  presence_penalty: 'presence_penalty; use repetition_penalty',
};

const NOTHING: readonly unknown[] = [0, 'none', 'auto', 'text'];

/** Refuses the fields of `table` that are present with a value other than an empty one. */
export function refuse(body: Fields, table: Readonly<Record<string, string>>): void {
  for (const [name, what] of Object.entries(table)) {
    const value = body.value(name);
    if (value === undefined || NOTHING.includes(value) || (Array.isArray(value) && value.length === 0)) continue;
    throw unsupportedField(body.at(name), what);
  }
  const choice = body.value('tool_choice');
  if (choice !== undefined && choice !== 'none' && choice !== 'auto') throw unsupportedField('tool_choice', 'tools');
}

/** Sampling options. */
export function samplingOf(body: Fields): Partial<EngineRequest> {
  const temperature = body.number('temperature', 0, 2);
  const topP = body.number('top_p', 0, 1);
  const topK = body.integer('top_k', 1, 2 ** 31);
  const repetitionPenalty = body.number('repetition_penalty', 0.01, 100);
  const seed = body.integer('seed', -(2 ** 53) + 1, 2 ** 53 - 1);
  return given({
    temperature,
    // A share of 0 keeps the most likely token alone.
    topP: topP === 0 ? Number.MIN_VALUE : topP,
    topK,
    repetitionPenalty,
    seed: seed !== undefined && seed < 0 ? 2 ** 53 + seed : seed,
  });
}

const NAMED = ['name', 'description', 'schema', 'strict'];

/** The form of an answer: `response_format` of chat completions, whose schema lies in `json_schema`, or `text.format` of responses. */
export function formatOf(format: Fields | undefined): AnswerFormat | undefined {
  if (format === undefined) return undefined;
  format.only(['type', 'json_schema', ...NAMED]);
  const type = format.oneOf('type', ['text', 'json_object', 'json_schema']);
  if (type === undefined) throw missing(format.at('type'));
  if (type === 'text') return undefined;
  if (type === 'json_object') return { type: 'schema', schema: { type: 'object' } };
  const named = format.object('json_schema') ?? format;
  named.only(['type', ...NAMED]);
  named.text('name', 1000);
  named.text('description', 100_000);
  named.flag('strict');
  const schema = named.object('schema');
  if (schema === undefined) throw missing(named.at('schema'));
  return { type: 'schema', schema: named.value('schema') as Readonly<Record<string, unknown>> };
}

/** `sparsity` of a request: the name of a method, or `{ method, prefill, decode, positions, seed, verify, refresh }`; what it does not name is the server's. */
export function sparsityOf(body: Fields, standard: SparsityRequest): SparsityRequest {
  const value = body.value('sparsity');
  if (value === undefined) return standard;
  const verified = given({ verify: standard.verify });
  if (typeof value === 'string') return { method: methodNamed(value, body.at('sparsity')), ...verified };
  const fields = body.object('sparsity');
  if (fields === undefined) return standard;
  fields.only([
    ...['method', 'prefill', 'decode', 'prefillSparsity', 'decodeSparsity', 'positions', 'seed', 'verify', 'refresh'],
  ]);
  const named = fields.text('method', 64);
  const method = named === undefined ? standard.method : methodNamed(named, fields.at('method'));
  const own: Partial<SparsityRequest> = given({
    prefillSparsity: fields.number('prefill', 0, 1) ?? fields.number('prefillSparsity', 0, 1),
    decodeSparsity: fields.number('decode', 0, 1) ?? fields.number('decodeSparsity', 0, 1),
    positions: fields.oneOf('positions', ['original', 'compact']),
    seed: fields.integer('seed', 0, 2 ** 53 - 1),
    verify: fields.oneOf('verify', ['dense', 'none']),
    refresh: refreshOf(fields.object('refresh')),
  });
  return method === standard.method ? { ...standard, ...own } : { method, ...verified, ...own };
}

function refreshOf(fields: Fields | undefined): Refresh | undefined {
  if (fields === undefined) return undefined;
  fields.only(['every', 'rejected']);
  return given({ every: fields.integer('every', 1, 2 ** 31), rejected: fields.integer('rejected', 1, 2 ** 31) });
}

function methodNamed(name: string, path: string): string {
  const names = METHODS.map((entry) => entry.name);
  if (names.includes(name)) return name;
  throw wrongType(path, `one of ${names.join(', ')}`, name);
}

export type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** The fields that are not undefined. */
export function given<T extends object>(fields: T): Given<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Given<T>;
}
