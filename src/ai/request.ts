// A call of the AI SDK as a request of the engine. What the engine cannot do causes a warning; a part of a message that it cannot read, an error.

import type {
  LanguageModelV4CallOptions,
  LanguageModelV4FilePart,
  LanguageModelV4Message,
  SharedV4Warning,
} from '@ai-sdk/provider' with { 'resolution-mode': 'import' };
import type { EngineRequest } from '../engine/types';
import { messageOf, received, SparseVilaError } from '../errors';
import { invalidOption, OBJECT } from '../options';
import type { ChatMessage } from '../session/history';
import type { Part } from '../session/options';

export interface CallRequest {
  readonly request: EngineRequest;
  readonly warnings: SharedV4Warning[];
}

/** Options of `providerOptions.sparsevila`, which the engine checks. */
const OWN = ['sparsity', 'logprobs', 'logitBias', 'repetitionPenalty'];

/** @throws SparseVilaError `ERR_OPTION_INVALID` for parts of messages and options that are not supported, and for what is no call of the SDK */
export function requestOf(call: LanguageModelV4CallOptions): CallRequest {
  try {
    return translated(call);
  } catch (cause) {
    if (cause instanceof SparseVilaError) throw cause;
    const message = `sparsevila: expected a call as the AI SDK makes it, but reading it threw: ${messageOf(cause)}`;
    throw new SparseVilaError('ERR_OPTION_INVALID', message, { cause });
  }
}

function translated(call: LanguageModelV4CallOptions): CallRequest {
  const warnings: SharedV4Warning[] = [];
  const unsupported = (feature: string, details?: string): void => {
    warnings.push({ type: 'unsupported', feature, ...(details !== undefined && { details }) });
  };
  const { temperature, responseFormat, reasoning = 'provider-default' } = call;
  if (call.presencePenalty) unsupported('presencePenalty', 'Give providerOptions.sparsevila.repetitionPenalty.');
  if (call.frequencyPenalty) unsupported('frequencyPenalty', 'Give providerOptions.sparsevila.repetitionPenalty.');
  if (call.tools !== undefined && call.tools.length > 0) unsupported('tools');
  if (!['provider-default', 'none'].includes(reasoning)) unsupported('reasoning');
  const isGreedy = temperature === undefined || temperature === 0;
  for (const name of ['topK', 'topP'] as const)
    if (isGreedy && call[name] !== undefined) unsupported(name, 'Without a temperature above 0, decoding is greedy.');
  const messages = messagesOf(call.prompt, unsupported);
  const given = {
    ...{ messages, temperature, seed: call.seed, maxTokens: call.maxOutputTokens, stop: call.stopSequences },
    ...(isGreedy ? {} : { topK: call.topK, topP: call.topP }),
    ...(responseFormat?.type === 'json' && { format: formatOf(responseFormat.schema) }),
    ...ownOptions(call.providerOptions?.sparsevila),
  };
  const request = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  return { request: request as unknown as EngineRequest, warnings };
}

const formatOf = (schema: object | undefined): EngineRequest['format'] =>
  schema === undefined ? { type: 'json' } : { type: 'schema', schema: schema as Record<string, unknown> };

function ownOptions(given: unknown): Partial<EngineRequest> {
  if (given === undefined) return {};
  const isKnown = OBJECT.accepts(given) && Object.keys(given as object).every((name) => OWN.includes(name));
  if (!isKnown)
    throw invalidOption('sparsevila', `only ${OWN.join(', ')} in providerOptions.sparsevila`, received(given));
  return given as Partial<EngineRequest>;
}

type Unsupported = (feature: string, details?: string) => void;

/** Messages of one role in a row become one, because user and assistant alternate in a chat template. */
function messagesOf(prompt: readonly LanguageModelV4Message[], unsupported: Unsupported): ChatMessage[] {
  const messages: { role: ChatMessage['role']; content: Part[] }[] = [];
  for (const message of prompt) {
    if (message.role === 'tool') throw notTaken('messages of tools');
    const parts = typeof message.content === 'string' ? [message.content] : partsOf(message.content, unsupported);
    const last = messages.at(-1);
    if (last?.role !== message.role) messages.push({ role: message.role, content: parts });
    else for (const part of joined(last.role, parts)) last.content.push(part);
  }
  return messages;
}

/** The parts, with a line break before a further system message. */
const joined = (role: string, parts: readonly Part[]): readonly Part[] =>
  role === 'system' ? ['\n', ...parts] : parts;

function partsOf(content: Exclude<LanguageModelV4Message['content'], string>, unsupported: Unsupported): Part[] {
  return content.flatMap((part): Part[] => {
    if (part.type === 'text') return [part.text];
    if (part.type === 'file') return [mediumOf(part)];
    if (part.type !== 'reasoning') throw notTaken(`parts of type ${part.type}`);
    unsupported('reasoning', 'Reasoning in earlier answers is left out.');
    return [];
  });
}

/** A picture or film of a message: bytes, base64, or a URL that the SDK was told not to fetch. */
function mediumOf({ data, mediaType }: LanguageModelV4FilePart): Part {
  const kind = mediaType.split('/', 1)[0];
  if (kind !== 'image' && kind !== 'video') throw notTaken(`files of type ${received(mediaType)}`);
  if (data.type !== 'data' && data.type !== 'url') throw notTaken(`files given as ${data.type}`);
  const source = data.type === 'url' ? data.url.href : bytesOf(data.data);
  return kind === 'image' ? { kind, image: source } : { kind, video: { file: source } };
}

const bytesOf = (data: Uint8Array | string): Uint8Array =>
  typeof data === 'string' ? Buffer.from(data, 'base64') : data;

function notTaken(what: string): SparseVilaError {
  return new SparseVilaError('ERR_OPTION_INVALID', `sparsevila: expected texts, pictures and films, received ${what}.`);
}
