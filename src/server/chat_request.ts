// The body of POST /v1/chat/completions as requests for the engine.

import type { EngineRequest } from '../engine/types';
import type { MediaSource } from './content';
import { type Fields, fieldsOf, missing, wrongType } from './fields';
import { messagesOf } from './messages';
import { invalidField, RequestError, unsupportedField } from './request_error';
import { EXTENSIONS, formatOf, given, IGNORED, REFUSED, refuse, samplingOf, sparsityOf } from './request_options';

/** A checked request: one engine request for each of its answers. */
export interface ChatRequest {
  readonly runs: readonly EngineRequest[];
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly hasLogprobs: boolean;
}

const KNOWN = [
  ...[
    'model',
    'messages',
    'stream',
    'stream_options',
    'max_tokens',
    'max_completion_tokens',
    'temperature',
    'top_p',
    'seed',
    'stop',
    'n',
  ],
  ...['logprobs', 'top_logprobs', 'response_format', 'logit_bias', 'modalities', 'reasoning_effort', 'tool_choice'],
];

export const MOST_STOPS = 16;
const STOP_LENGTH = 500;
const MOST_BIASES = 1024;

/** The model that is served: its name for clients, and how many tokens an answer has by default. */
export interface ServedModel {
  readonly name: string;
  readonly maxNewTokens: number;
}

/** @throws RequestError */
export async function chatRequest(value: unknown, model: ServedModel, source: MediaSource): Promise<ChatRequest> {
  const body = fieldsOf(value);
  body.only(KNOWN, IGNORED, EXTENSIONS, Object.keys(REFUSED));
  checkModel(body, model.name);
  refuse(body, REFUSED);
  const modalities = body.list('modalities', 8);
  if (modalities?.some((one) => one !== 'text')) throw unsupportedField('modalities', 'answers other than text');
  if (!['none', undefined].includes(body.text('reasoning_effort', 64)))
    throw unsupportedField('reasoning_effort', 'reasoning effort, which this model does not have');
  const { limits, sparsity } = source.options;
  const n = body.integer('n', 1, limits.answers) ?? 1;
  const { stream, includeUsage } = streamOf(body);
  const logprobs = logprobsOf(body);
  const request: Omit<EngineRequest, 'messages'> = {
    ...samplingOf(body),
    sparsity: sparsityOf(body, sparsity),
    maxTokens: Math.min(tokensOf(body) ?? model.maxNewTokens, Math.floor(limits.tokens / n)),
    ...given({
      stop: stopOf(body),
      logprobs,
      logitBias: biasOf(body),
      format: formatOf(body.object('response_format')),
      // The cells of each picture that were kept and attended.
      cells: body.flag('cells'),
    }),
  };
  const list = body.list('messages');
  if (list === undefined) throw missing('messages');
  // Media last, because they may be fetched.
  const messages = await messagesOf(list, source);
  const seeds = Array.from({ length: n }, (_, i) =>
    request.seed === undefined || i === 0 ? {} : { seed: request.seed + i },
  );
  return {
    runs: seeds.map((seed) => ({ ...request, ...seed, messages })),
    ...{ stream, includeUsage, hasLogprobs: logprobs !== undefined },
  };
}

/** @throws RequestError if the request names no model (400), or another one than `name` (404) */
export function checkModel(body: Fields, name: string): void {
  const wanted = body.text('model', 1000);
  if (wanted === undefined) throw missing('model');
  if (wanted === name) return;
  const message = `The model '${wanted.slice(0, 200)}' does not exist. This server has '${name}'.`;
  throw new RequestError(404, message, { code: 'model_not_found', param: 'model' });
}

function streamOf(body: Fields): { stream: boolean; includeUsage: boolean } {
  const stream = body.flag('stream') ?? false;
  const options = body.object('stream_options');
  if (options !== undefined && !stream)
    throw invalidField('stream_options', "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
  options?.only(['include_usage', 'include_obfuscation', 'continuous_usage_stats']);
  return { stream, includeUsage: options?.flag('include_usage') ?? false };
}

const tokensOf = (body: Fields): number | undefined =>
  body.integer('max_completion_tokens', 1, 2 ** 31) ?? body.integer('max_tokens', 1, 2 ** 31);

/** The texts at which an answer ends. */
export function stopOf(body: Fields): readonly string[] | undefined {
  const value = body.value('stop');
  if (value === undefined) return undefined;
  const stops = typeof value === 'string' ? [value] : body.list('stop', MOST_STOPS);
  const isStop = (stop: unknown): stop is string =>
    typeof stop === 'string' && stop !== '' && stop.length <= STOP_LENGTH;
  if (stops?.every(isStop)) return stops;
  throw wrongType('stop', `strings of 1 to ${STOP_LENGTH} characters`, value);
}

/** The number of alternatives with each token; undefined without log-probabilities. */
function logprobsOf(body: Fields): number | undefined {
  const top = body.integer('top_logprobs', 0, 20);
  if (body.flag('logprobs') === true) return top ?? 0;
  if (top === undefined || top === 0) return undefined;
  throw invalidField('top_logprobs', "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.");
}

function biasOf(body: Fields): Record<number, number> | undefined {
  const biases = body.object('logit_bias');
  if (biases === undefined) return undefined;
  const names = biases.names();
  if (names.length > MOST_BIASES) throw wrongType('logit_bias', `at most ${MOST_BIASES} tokens`, names.length);
  const entries = names.map((name): [number, number] => {
    if (!/^\d{1,9}$/.test(name)) throw wrongType('logit_bias', 'token ids as names', name);
    return [Number(name), biases.number(name, -100, 100) ?? 0];
  });
  return Object.fromEntries(entries);
}
